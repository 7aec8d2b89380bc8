package reach

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"syscall"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
)

// maxTries is how many endpoints of a Service are tried before the last one's error is returned.
const maxTries = 4

// endpoint is one ready address of a Service's port.
type endpoint struct {
	pod     *corev1.Pod // nil: an address that is no pod of this cluster
	address string
	port    int32
}

// DialService connects to a ready endpoint of a Service's port: a pod, an address that
// a client has put into an EndpointSlice, or the host of an ExternalName. An error that is a Status is about the Service or a
// node; any other says why its endpoints do not accept.
func (d *Dialer) DialService(ctx context.Context, namespace, name string, port int32) (net.Conn, error) {
	d.catchUp(ctx)
	svc, ok := control.Get[*corev1.Service](d.cfg.Objects, kube.Service, namespace, name)
	if !ok {
		return nil, apierrors.NewNotFound(corev1.Resource("services"), name)
	}
	if svc.Spec.Type == corev1.ServiceTypeExternalName {
		return dialAddress(ctx, net.JoinHostPort(svc.Spec.ExternalName, strconv.Itoa(int(port))))
	}
	portName, err := portNumbered(svc, int64(port))
	if err != nil {
		return nil, err
	}
	var found []endpoint
	for _, slice := range d.slices(namespace, name) {
		found = append(found, d.ready(slice, portName)...)
	}
	return d.dialAny(ctx, name, found)
}

// DialServicePod is DialService for requests of users (services/proxy), with the port's number or name: it only connects to pods of the Service's own namespace,
// as Kubernetes does. A user who may write EndpointSlices must not reach other places from the hub.
func (d *Dialer) DialServicePod(ctx context.Context, namespace, name, port string) (net.Conn, error) {
	d.catchUp(ctx)
	svc, ok := control.Get[*corev1.Service](d.cfg.Objects, kube.Service, namespace, name)
	if !ok {
		return nil, apierrors.NewNotFound(corev1.Resource("services"), name)
	}
	portName := port
	if n, err := strconv.ParseInt(port, 10, 64); err == nil {
		if portName, err = portNumbered(svc, n); err != nil {
			return nil, err
		}
	}
	var found []endpoint
	for _, slice := range d.slices(namespace, name) {
		for _, e := range d.ready(slice, portName) {
			if e.pod != nil && e.pod.Namespace == namespace {
				found = append(found, e)
			}
		}
	}
	return d.dialAny(ctx, name, found)
}

// portNumbered returns the name, which may be empty, of a Service's port.
func portNumbered(svc *corev1.Service, port int64) (string, error) {
	for _, p := range svc.Spec.Ports {
		if int64(p.Port) == port {
			return p.Name, nil
		}
	}
	return "", apierrors.NewServiceUnavailable(fmt.Sprintf("no service port %d found for service %q", port, svc.Name))
}

// slices returns the EndpointSlices of a Service.
func (d *Dialer) slices(namespace, service string) (out []*discoveryv1.EndpointSlice) {
	for _, s := range control.List[*discoveryv1.EndpointSlice](d.cfg.Objects, kube.EndpointSlice, namespace) {
		if s.Labels[discoveryv1.LabelServiceName] == service && s.AddressType != discoveryv1.AddressTypeFQDN {
			out = append(out, s)
		}
	}
	return out
}

// ready returns the ready endpoints of a slice's port of that name.
func (d *Dialer) ready(slice *discoveryv1.EndpointSlice, portName string) (out []endpoint) {
	i := slices.IndexFunc(slice.Ports, func(p discoveryv1.EndpointPort) bool {
		tcp := p.Protocol == nil || *p.Protocol == corev1.ProtocolTCP
		return tcp && p.Port != nil && (p.Name == nil && portName == "" || p.Name != nil && *p.Name == portName)
	})
	if i < 0 {
		return nil
	}
	for _, e := range slice.Endpoints {
		if e.Conditions.Ready != nil && !*e.Conditions.Ready || len(e.Addresses) == 0 {
			continue
		}
		if pod, ok := d.podOf(e); ok {
			out = append(out, endpoint{pod: pod, address: e.Addresses[0], port: *slice.Ports[i].Port})
		}
	}
	return out
}

// podOf returns the pod of an endpoint: the one that it refers to, or the one that has its address; nil when no pod has it.
// ok is false for a reference that is not true: that pod is gone or has another address.
func (d *Dialer) podOf(e discoveryv1.Endpoint) (pod *corev1.Pod, ok bool) {
	if ref := e.TargetRef; ref != nil && ref.Kind == kube.Pod.Kind {
		pod, ok = control.Get[*corev1.Pod](d.cfg.Objects, kube.Pod, ref.Namespace, ref.Name)
		return pod, ok && hasAddress(pod, e.Addresses[0])
	}
	for _, pod := range control.List[*corev1.Pod](d.cfg.Objects, kube.Pod, "") {
		if !pod.Spec.HostNetwork && hasAddress(pod, e.Addresses[0]) {
			return pod, true
		}
	}
	return nil, true
}

func hasAddress(pod *corev1.Pod, address string) bool {
	return slices.ContainsFunc(pod.Status.PodIPs, func(ip corev1.PodIP) bool { return ip.IP == address })
}

// dialAny connects to one of a Service's endpoints, in random order: one whose node is dark must not fail what others can serve.
func (d *Dialer) dialAny(ctx context.Context, service string, found []endpoint) (net.Conn, error) {
	err := error(apierrors.NewServiceUnavailable(fmt.Sprintf("no endpoints available for service %q", service)))
	rand.Shuffle(len(found), func(i, j int) { found[i], found[j] = found[j], found[i] })
	for _, e := range found[:min(len(found), maxTries)] {
		var conn net.Conn
		if conn, err = d.dialEndpoint(ctx, e); err == nil {
			return conn, nil
		}
		if ctx.Err() != nil {
			return nil, err
		}
	}
	return nil, err
}

func (d *Dialer) dialEndpoint(ctx context.Context, e endpoint) (net.Conn, error) {
	if e.pod != nil {
		return d.dialPod(ctx, e.pod, e.port)
	}
	return dialAddress(ctx, net.JoinHostPort(e.address, strconv.Itoa(int(e.port))))
}

// dialAddress connects from the hub itself. The check is on the address that is dialed, after names are resolved.
func dialAddress(ctx context.Context, hostPort string) (net.Conn, error) {
	dialer := net.Dialer{Timeout: dialTime, Control: func(_, address string, _ syscall.RawConn) error {
		if !allowed(address) {
			return fmt.Errorf("address %s is not allowed: the hub dials no loopback and link-local addresses for others", address)
		}
		return nil
	}}
	conn, err := dialer.DialContext(ctx, "tcp", hostPort)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", hostPort, err)
	}
	return conn, nil
}

// allowed reports whether the hub dials an address, "ip:port", for others: it is neither loopback nor link-local nor unspecified.
func allowed(address string) bool {
	a, err := netip.ParseAddrPort(address)
	if err != nil {
		return false
	}
	ip := a.Addr().Unmap()
	return !ip.IsLoopback() && !ip.IsLinkLocalUnicast() && !ip.IsLinkLocalMulticast() && !ip.IsInterfaceLocalMulticast() && !ip.IsUnspecified()
}
