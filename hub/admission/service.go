package admission

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/hub/resource/core"
	"petrel.dev/petrel/internal/kube"
)

var (
	errFull      = errors.New("range is full")
	errIPTaken   = errors.New("provided IP is already allocated")
	errPortTaken = errors.New("provided port is already allocated")
)

// Indexes of the stored Services by what is allocated to them.
const (
	ipIndex   = "clusterIP"
	portIndex = "nodePort"
)

// claimTime is how long an address stays claimed for a write whose context does not end: longer than any commit takes.
const claimTime = 30 * time.Second

// services allocates cluster IPs and node ports. Which are taken is read from the stored Services, so there is nothing to persist,
// to leak or to repair; claims cover the time between allocation and commit.
type services struct {
	objects Objects
	ips     ipRange
	ports   portRange
	pods    netip.Prefix // invalid: not known
	log     *slog.Logger

	mu     sync.Mutex
	claims map[string]*claim // by address or port; an entry ends by settle, release or claim.until; guarded by mu
}

// claim is what is allocated to one write. It is immutable.
type claim struct {
	owner string    // "namespace/name" of the Service, "" while its name is not known
	until time.Time // when it ends at the latest
}

func newServices(cfg Config) (*services, error) {
	ips, err := newIPRange(cfg.ServiceCIDR)
	if err != nil {
		return nil, err
	}
	return &services{objects: cfg.Objects, ips: ips, ports: nodePorts, pods: cfg.ClusterCIDR, log: cfg.Log, claims: map[string]*claim{}}, nil
}

// allocate completes a Service that is created or updated.
func (s *services) allocate(ctx context.Context, a *registry.AdmissionRequest) error {
	if gone, ok := a.Old.(*corev1.Service); ok && a.Operation == registry.OpDelete && !a.DryRun {
		s.release(gone)
		return nil
	}
	svc, ok := a.Object.(*corev1.Service)
	if !ok || a.Target.Subresource != "" || a.Operation != registry.OpCreate && a.Operation != registry.OpUpdate {
		return nil
	}
	old, _ := a.Old.(*corev1.Service)
	if old != nil {
		core.KeepAllocated(svc, old)
	} else if svc.Spec.ClusterIP != "" && len(svc.Spec.ClusterIPs) == 0 {
		svc.Spec.ClusterIPs = []string{svc.Spec.ClusterIP}
	}
	if err := s.ips.setFamilies(svc, old); err != nil {
		return err
	}
	if err := s.externalIPs(svc, old); err != nil {
		return err
	}
	err := s.try(ctx, svc, old, a.DryRun)
	var refused *refusal
	if errors.As(err, &refused) {
		return kube.NewInvalid(kube.Service.GroupKind(), svc.Name, field.ErrorList{field.Invalid(refused.path, refused.value, refused.Error())})
	}
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	return nil
}

// refusal is why a requested address or port cannot be allocated.
type refusal struct {
	path  *field.Path
	value any
	text  string
	why   error
}

func (r *refusal) Error() string { return r.text }
func (r *refusal) Unwrap() error { return r.why }

// try allocates and claims all that svc lacks, or nothing.
func (s *services) try(ctx context.Context, svc, old *corev1.Service, dry bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for key, c := range s.claims {
		if now.After(c.until) {
			delete(s.claims, key)
		}
	}
	b := &booking{services: s, svc: svc.DeepCopy(), old: old, taken: map[string]bool{}}
	if svc.Name != "" {
		b.owner = svc.Namespace + "/" + svc.Name
	}
	if err := b.book(); err != nil {
		return err
	}
	svc.Spec = b.svc.Spec
	if dry || len(b.taken) == 0 {
		return nil
	}
	c := &claim{owner: b.owner, until: now.Add(claimTime)}
	for key := range b.taken {
		s.claims[key] = c
	}
	context.AfterFunc(ctx, func() { s.settle(c) })
	s.log.Debug("service addresses allocated", "service", b.owner, "clusterIPs", svc.Spec.ClusterIPs)
	return nil
}

// settle ends the claims of a request that has ended, once reads show what it has written: from then on only what is stored
// counts. When the feed has ended, later writes are refused before they reach the allocation.
func (s *services) settle(c *claim) {
	ctx, cancel := context.WithDeadline(context.Background(), c.until)
	defer cancel()
	if err := s.objects.CatchUp(ctx); err != nil {
		s.log.Warn("claims of a service's addresses ended before the cache showed what is stored", "service", c.owner, "error", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, other := range s.claims {
		if other == c {
			delete(s.claims, key)
		}
	}
}

// release ends the claims of a stored Service that is about to be deleted: its addresses are free once it is gone.
func (s *services) release(svc *corev1.Service) {
	if seen, ok := s.objects.Get(kube.Service, svc.Namespace, svc.Name); !ok || seen.GetUID() != svc.UID {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, c := range s.claims {
		if c.owner == svc.Namespace+"/"+svc.Name {
			delete(s.claims, key)
		}
	}
}

// booking is one attempt to complete svc, which is its own copy.
type booking struct {
	*services
	svc, old *corev1.Service
	owner    string          // "namespace/name" of svc
	taken    map[string]bool // claimed by this attempt
}

// book allocates everything that svc lacks. After an error the caller drops the booking, and nothing is claimed.
func (b *booking) book() error {
	if err := b.clusterIP(); err != nil {
		return err
	}
	if t := b.svc.Spec.Type; t == corev1.ServiceTypeNodePort || t == corev1.ServiceTypeLoadBalancer {
		if err := b.nodePorts(); err != nil {
			return err
		}
	}
	return b.healthCheckPort()
}

// free reports whether no other Service has key under the index, and claims it in that case.
func (b *booking) free(index, key string) bool {
	if b.taken[key] {
		return false
	}
	for _, obj := range b.objects.Index(kube.Service, index, key) {
		if obj.GetNamespace()+"/"+obj.GetName() != b.owner {
			return false
		}
	}
	if index == ipIndex && b.reserved(key) {
		return false
	}
	if c, ok := b.claims[key]; ok && (c.owner == "" || c.owner != b.owner) {
		return false
	}
	b.taken[key] = true
	return true
}

// reserved reports whether a user holds the address for something else, by an IPAddress. Those of Services follow the Services, which
// are what counts.
func (b *booking) reserved(ip string) bool {
	obj, ok := b.objects.Get(kube.IPAddress, "", ip)
	return ok && obj.GetLabels()[networkingv1.LabelManagedBy] != kube.ServiceAddresses
}

// clusterIP allocates the Service's address. One that it has already never changes: validation refuses that.
func (b *booking) clusterIP() error {
	spec := &b.svc.Spec
	if spec.Type == corev1.ServiceTypeExternalName || len(spec.ClusterIPs) > 0 && spec.ClusterIPs[0] == corev1.ClusterIPNone {
		return nil
	}
	if b.old != nil && b.old.Spec.Type != corev1.ServiceTypeExternalName {
		return nil
	}
	if len(spec.ClusterIPs) > 0 && spec.ClusterIPs[0] != "" {
		return b.askedIP(spec.ClusterIPs[0])
	}
	ip, ok := b.ips.next(func(ip netip.Addr) bool { return b.free(ipIndex, ip.String()) })
	if !ok {
		return fmt.Errorf("failed to allocate a serviceIP for Service %q: %w", b.svc.Name, errFull)
	}
	spec.ClusterIP, spec.ClusterIPs = ip.String(), []string{ip.String()}
	return nil
}

// askedIP claims the address that the client asks for, or refuses it.
func (b *booking) askedIP(asked string) error {
	refuse := func(why error) error {
		return &refusal{path: field.NewPath("spec", "clusterIPs"), value: b.svc.Spec.ClusterIPs,
			text: fmt.Sprintf("failed to allocate IP %v: %v", asked, why), why: why}
	}
	ip, err := netip.ParseAddr(asked)
	if err != nil {
		return nil // validation reports it
	}
	if !b.ips.contains(ip) {
		return refuse(fmt.Errorf("the provided IP (%v) is not in the valid range. The range of valid IPs is %s", ip, b.ips.cidr))
	}
	if reserved := b.ips.reservedFor(ip); reserved != "" && reserved != b.owner {
		return refuse(errIPTaken)
	}
	if !b.free(ipIndex, ip.String()) {
		return refuse(errIPTaken)
	}
	return nil
}

// nodePorts allocates a node port for each port that lacks one. On creation, ports of one number (TCP and UDP) share theirs.
func (b *booking) nodePorts() error {
	had := map[int32]bool{}
	if b.old != nil {
		for _, p := range b.old.Spec.Ports {
			had[p.NodePort] = true
		}
	}
	allocate := b.svc.Spec.Type == corev1.ServiceTypeNodePort || b.svc.Spec.AllocateLoadBalancerNodePorts == nil ||
		*b.svc.Spec.AllocateLoadBalancerNodePorts
	shared := map[int32]int32{} // port → node port
	ports := b.svc.Spec.Ports
	for i := range ports {
		p := &ports[i]
		if p.NodePort == 0 {
			continue
		}
		if !had[p.NodePort] && shared[p.Port] != p.NodePort {
			if err := b.askedPort(field.NewPath("spec", "ports").Index(i).Child("nodePort"), p.NodePort); err != nil {
				return err
			}
		}
		shared[p.Port] = p.NodePort
	}
	for i := range ports {
		p := &ports[i]
		if p.NodePort != 0 || !allocate {
			continue
		}
		if b.old == nil && shared[p.Port] != 0 {
			p.NodePort = shared[p.Port]
			continue
		}
		port, ok := b.ports.next(b.freePort)
		if !ok {
			return fmt.Errorf("failed to allocate a nodePort: %w", errFull)
		}
		p.NodePort = port
		shared[p.Port] = port
	}
	return nil
}

func (b *booking) freePort(port int32) bool { return b.free(portIndex, strconv.Itoa(int(port))) }

// askedPort claims the port that the client asks for, or refuses it.
func (b *booking) askedPort(path *field.Path, port int32) error {
	why := errPortTaken
	if !b.ports.contains(port) {
		why = fmt.Errorf("provided port is not in the valid range. The range of valid ports is %s", b.ports)
	} else if b.freePort(port) {
		return nil
	}
	return &refusal{path: path, value: port, text: why.Error(), why: why}
}

// healthCheckPort allocates the port on which a load balancer asks nodes whether they have local endpoints.
func (b *booking) healthCheckPort() error {
	if !needsHealthCheck(b.svc) || b.old != nil && needsHealthCheck(b.old) {
		return nil
	}
	if port := b.svc.Spec.HealthCheckNodePort; port != 0 {
		if err := b.askedPort(field.NewPath("spec", "healthCheckNodePort"), port); err != nil {
			return fmt.Errorf("failed to allocate requested HealthCheck NodePort %v: %w", port, errors.Unwrap(err))
		}
		return nil
	}
	port, ok := b.ports.next(b.freePort)
	if !ok {
		return fmt.Errorf("failed to allocate a HealthCheck NodePort: %w", errFull)
	}
	b.svc.Spec.HealthCheckNodePort = port
	return nil
}

// needsHealthCheck reports whether load balancers have to know which nodes have endpoints: only these serve the Service.
func needsHealthCheck(svc *corev1.Service) bool {
	return svc.Spec.Type == corev1.ServiceTypeLoadBalancer && svc.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal
}

// apiService and dnsService own the two fixed addresses of the service network.
const (
	apiService = metav1.NamespaceDefault + "/kubernetes"
	dnsService = metav1.NamespaceSystem + "/kube-dns"
)
