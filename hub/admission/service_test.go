package admission

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	"petrel.dev/petrel/hub/quota"
	"petrel.dev/petrel/hub/resource"
)

func service(name string, change ...func(*corev1.Service)) *corev1.Service {
	svc := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name},
		Spec:       corev1.ServiceSpec{Selector: map[string]string{"app": name}, Ports: []corev1.ServicePort{{Port: 80}}},
	}
	for _, f := range change {
		f(svc)
	}
	resource.Scheme().Default(svc)
	return svc
}

func ofType(t corev1.ServiceType) func(*corev1.Service) {
	return func(svc *corev1.Service) { svc.Spec.Type = t }
}

func withIP(ip string) func(*corev1.Service) {
	return func(svc *corev1.Service) { svc.Spec.ClusterIP = ip }
}

func withNodePort(port int32) func(*corev1.Service) {
	return func(svc *corev1.Service) {
		svc.Spec.Type = corev1.ServiceTypeNodePort
		svc.Spec.Ports[0].NodePort = port
	}
}

func TestServiceGetsAddresses(t *testing.T) {
	s := newStore(namespace("ns", corev1.NamespaceActive))
	c := newChain(t, s)
	svc := service("a", ofType(corev1.ServiceTypeNodePort))
	svc.Spec.Ports = append(svc.Spec.Ports, corev1.ServicePort{Name: "dns", Port: 53, Protocol: "TCP"}, corev1.ServicePort{Name: "dns-udp", Port: 53, Protocol: "UDP"})
	if err := admit(context.Background(), c, svc, nil); err != nil {
		t.Fatal(err)
	}
	ip, err := netip.ParseAddr(svc.Spec.ClusterIP)
	if err != nil || !netip.MustParsePrefix("10.43.0.0/16").Contains(ip) {
		t.Errorf("clusterIP = %q", svc.Spec.ClusterIP)
	}
	if len(svc.Spec.ClusterIPs) != 1 || svc.Spec.ClusterIPs[0] != svc.Spec.ClusterIP {
		t.Errorf("clusterIPs = %v", svc.Spec.ClusterIPs)
	}
	if fmt.Sprintf("%v %s", svc.Spec.IPFamilies, *svc.Spec.IPFamilyPolicy) != "[IPv4] SingleStack" {
		t.Errorf("families = %v %v", svc.Spec.IPFamilies, *svc.Spec.IPFamilyPolicy)
	}
	for _, p := range svc.Spec.Ports {
		if p.NodePort < 30000 || p.NodePort > 32767 {
			t.Errorf("nodePort = %d", p.NodePort)
		}
	}
	if a, b := svc.Spec.Ports[1].NodePort, svc.Spec.Ports[2].NodePort; a != b {
		t.Errorf("TCP and UDP of one port got %d and %d", a, b)
	}
}

func TestServiceWithoutAddress(t *testing.T) {
	c := newChain(t, newStore(namespace("ns", corev1.NamespaceActive)))
	headless := service("h", withIP("None"))
	if err := admit(context.Background(), c, headless, nil); err != nil || headless.Spec.ClusterIPs[0] != "None" {
		t.Errorf("headless: %v, %v", headless.Spec.ClusterIPs, err)
	}
	external := service("e", ofType(corev1.ServiceTypeExternalName), func(svc *corev1.Service) { svc.Spec.ExternalName = "example.com" })
	if err := admit(context.Background(), c, external, nil); err != nil || external.Spec.ClusterIP != "" || external.Spec.IPFamilies != nil {
		t.Errorf("external name: %+v, %v", external.Spec, err)
	}
	loose := service("l", withIP("None"), func(svc *corev1.Service) { svc.Spec.Selector = nil })
	if err := admit(context.Background(), c, loose, nil); err != nil || fmt.Sprintf("%v %s", loose.Spec.IPFamilies, *loose.Spec.IPFamilyPolicy) != "[IPv4 IPv6] RequireDualStack" {
		t.Errorf("headless without selector: %v, %v", loose.Spec.IPFamilies, err)
	}
}

func TestServiceRefusals(t *testing.T) {
	taken := service("taken", withNodePort(30080), withIP("10.43.0.77"))
	taken.Spec.ClusterIPs = []string{"10.43.0.77"}
	router := &networkingv1.IPAddress{TypeMeta: metav1.TypeMeta{APIVersion: "networking.k8s.io/v1", Kind: "IPAddress"}, ObjectMeta: metav1.ObjectMeta{Name: "10.43.0.78"}}
	for name, c := range map[string]struct {
		svc  *corev1.Service
		want string
	}{
		"taken IP": {service("a", withIP("10.43.0.77")),
			`Service "a" is invalid: spec.clusterIPs: Invalid value: ["10.43.0.77"]: failed to allocate IP 10.43.0.77: provided IP is already allocated`},
		"IP of something else": {service("a", withIP("10.43.0.78")),
			`Service "a" is invalid: spec.clusterIPs: Invalid value: ["10.43.0.78"]: failed to allocate IP 10.43.0.78: provided IP is already allocated`},
		"taken port": {service("a", withNodePort(30080)),
			`Service "a" is invalid: spec.ports[0].nodePort: Invalid value: 30080: provided port is already allocated`},
		"IP outside": {service("a", withIP("10.99.0.1")),
			`Service "a" is invalid: spec.clusterIPs: Invalid value: ["10.99.0.1"]: failed to allocate IP 10.99.0.1: the provided IP (10.99.0.1) is not in the valid range. The range of valid IPs is 10.43.0.0/16`},
		"the API's own": {service("a", withIP("10.43.0.1")),
			`Service "a" is invalid: spec.clusterIPs: Invalid value: ["10.43.0.1"]: failed to allocate IP 10.43.0.1: provided IP is already allocated`},
		"port outside": {service("a", withNodePort(80)),
			`Service "a" is invalid: spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. The range of valid ports is 30000-32767`},
		"dual stack": {service("a", func(svc *corev1.Service) {
			policy := corev1.IPFamilyPolicyRequireDualStack
			svc.Spec.IPFamilyPolicy = &policy
		}), `Service "a" is invalid: spec.ipFamilyPolicy: Invalid value: "RequireDualStack": this cluster is not configured for dual-stack services`},
		"no such family": {service("a", func(svc *corev1.Service) { svc.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv6Protocol} }),
			`Service "a" is invalid: spec.ipFamilies[0]: Invalid value: "IPv6": not configured on this cluster`},
		"not an IP": {service("a", withIP("house")),
			`Service "a" is invalid: spec.clusterIPs[0]: Invalid value: "house": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)`},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ch := newChain(t, newStore(namespace("ns", corev1.NamespaceActive), taken, router))
				wantError(t, admit(context.Background(), ch, c.svc, nil), c.want)
			})
		})
	}
}

func TestServiceReservedAddresses(t *testing.T) {
	c := newChain(t, newStore(namespace("default", corev1.NamespaceActive), namespace("kube-system", corev1.NamespaceActive)))
	api := service("kubernetes", withIP("10.43.0.1"))
	api.Namespace = "default"
	if err := admit(context.Background(), c, api, nil); err != nil {
		t.Errorf("default/kubernetes: %v", err)
	}
	dns := service("kube-dns", withIP("10.43.0.10"))
	dns.Namespace = "kube-system"
	if err := admit(context.Background(), c, dns, nil); err != nil {
		t.Errorf("kube-system/kube-dns: %v", err)
	}
}

// An update keeps what was given out, gives what a new type needs, and may ask for free ports only.
func TestServiceUpdate(t *testing.T) {
	ctx := context.Background()
	s := newStore(namespace("ns", corev1.NamespaceActive))
	c := newChain(t, s)
	old := service("a", ofType(corev1.ServiceTypeNodePort))
	if err := admit(ctx, c, old, nil); err != nil {
		t.Fatal(err)
	}
	s.put(old)

	again := service("a", ofType(corev1.ServiceTypeNodePort))
	if err := admit(ctx, c, again, old); err != nil {
		t.Fatal(err)
	}
	if again.Spec.ClusterIP != old.Spec.ClusterIP || again.Spec.Ports[0].NodePort != old.Spec.Ports[0].NodePort {
		t.Errorf("applying the manifest again changed %v to %v", old.Spec, again.Spec)
	}

	plain := service("a")
	if err := admit(ctx, c, plain, old); err != nil || plain.Spec.Ports[0].NodePort != 0 {
		t.Errorf("ClusterIP keeps node port %d, %v", plain.Spec.Ports[0].NodePort, err)
	}
	s.put(plain)
	back := plain.DeepCopy()
	back.Spec.Type = corev1.ServiceTypeNodePort
	if err := admit(ctx, c, back, plain); err != nil || back.Spec.Ports[0].NodePort == 0 {
		t.Errorf("NodePort has no node port, %v", err)
	}
}

func TestServiceHealthCheckPort(t *testing.T) {
	c := newChain(t, newStore(namespace("ns", corev1.NamespaceActive)))
	svc := service("a", ofType(corev1.ServiceTypeLoadBalancer), func(svc *corev1.Service) {
		svc.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
	})
	if err := admit(context.Background(), c, svc, nil); err != nil {
		t.Fatal(err)
	}
	if p := svc.Spec.HealthCheckNodePort; p == 0 || p == svc.Spec.Ports[0].NodePort {
		t.Errorf("healthCheckNodePort = %d, nodePort = %d", p, svc.Spec.Ports[0].NodePort)
	}
}

// An address is claimed from the moment it is given out until its Service shows, or the request has come to nothing.
func TestServiceClaims(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(namespace("ns", corev1.NamespaceActive))
		c := newChain(t, s)
		first, end := context.WithCancel(context.Background())
		if err := admit(first, c, service("a", withNodePort(30080)), nil); err != nil {
			t.Fatal(err)
		}
		const refused = `Service "b" is invalid: spec.ports[0].nodePort: Invalid value: 30080: provided port is already allocated`
		wantError(t, admit(t.Context(), c, service("b", withNodePort(30080)), nil), refused)
		if err := admit(t.Context(), c, service("a", withNodePort(30080)), nil); err != nil {
			t.Errorf("the same Service tries again: %v", err)
		}
		dry := request(service("c", withNodePort(30090)), nil)
		dry.DryRun = true
		if err := c.Mutate(t.Context(), dry); err != nil {
			t.Fatal(err)
		}
		if err := admit(t.Context(), c, service("d", withNodePort(30090)), nil); err != nil {
			t.Errorf("a dry run claimed its port: %v", err)
		}

		end() // nothing was stored
		time.Sleep(claimTime + time.Second)
		b := service("b", withNodePort(30080))
		if err := admit(t.Context(), c, b, nil); err != nil {
			t.Errorf("after the claim has run out: %v", err)
		}
		s.put(b)
		time.Sleep(claimTime + time.Second)
		wantError(t, admit(t.Context(), c, service("e", withNodePort(30080)), nil), strings.ReplaceAll(refused, `"b"`, `"e"`))
		s.remove(b)
		if err := admit(t.Context(), c, service("e", withNodePort(30080)), nil); err != nil {
			t.Errorf("after the deletion: %v", err)
		}
	})
}

func TestServiceClaimEndsWithRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newChain(t, newStore(namespace("ns", corev1.NamespaceActive)))
		ctx, end := context.WithCancel(context.Background())
		if err := admit(ctx, c, service("a", withNodePort(30080)), nil); err != nil {
			t.Fatal(err)
		}
		end()
		synctest.Wait()
		if err := admit(t.Context(), c, service("b", withNodePort(30080)), nil); err != nil {
			t.Errorf("after the request ended: %v", err)
		}
	})
}

// TestServiceAddressesAreDistinct checks that no two Services that are created at the same time get the same address, to the
// last one of the range.
func TestServiceAddressesAreDistinct(t *testing.T) {
	s := newStore(namespace("ns", corev1.NamespaceActive))
	c, err := New(Config{Objects: s, Ledger: quota.NewLedger(s, kinds.OfResource), ServiceCIDR: netip.MustParsePrefix("10.9.0.0/26")})
	if err != nil {
		t.Fatal(err)
	}
	const usable = 64 - 2 - 2 // network, broadcast, API, DNS
	var mu sync.Mutex
	var wg sync.WaitGroup
	got := map[string]int{}
	full := 0
	for i := range usable + 5 {
		wg.Go(func() {
			svc := service(fmt.Sprint("s", i), ofType(corev1.ServiceTypeNodePort))
			err := admit(context.Background(), c, svc, nil)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				got[svc.Spec.ClusterIP]++
				got[fmt.Sprint(svc.Spec.Ports[0].NodePort)]++
			case strings.HasSuffix(err.Error(), "range is full"):
				full++
			default:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for address, n := range got {
		if n != 1 {
			t.Errorf("%s was given out %d times", address, n)
		}
	}
	if len(got) != 2*usable || full != 5 {
		t.Errorf("%d addresses and ports, %d refusals; want %d, 5", len(got), full, 2*usable)
	}
}

func TestRanges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		bits := rapid.IntRange(8, 28).Draw(t, "bits")
		cidr := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(rapid.IntRange(0, 255).Draw(t, "b")), 0, 0}), bits)
		if rapid.Bool().Draw(t, "v6") {
			cidr = netip.PrefixFrom(netip.MustParseAddr("fd00:10:43::"), 96+bits)
		}
		r, err := newIPRange(cidr)
		if err != nil {
			t.Fatal(err)
		}
		ip, ok := r.next(func(netip.Addr) bool { return true })
		if !ok || !r.contains(ip) || r.reservedFor(ip) != "" {
			t.Fatalf("%s gave out %s, %v", cidr, ip, ok)
		}
		if r.contains(r.cidr.Addr()) || r.contains(netip.MustParseAddr("192.0.2.1")) {
			t.Fatalf("%s contains what it must not", cidr)
		}
	})
	if _, err := newIPRange(netip.MustParsePrefix("10.0.0.0/30")); err == nil {
		t.Error("a network of four addresses is accepted")
	}
}

// A pod or user that may write Services must not take what is sent to others (L9).
func TestExternalIPsOfTheClusterAreRefused(t *testing.T) {
	s := newStore(namespace("ns", corev1.NamespaceActive))
	c, err := New(Config{Objects: s, Ledger: quota.NewLedger(s, kinds.OfResource), ClusterCIDR: netip.MustParsePrefix("10.42.0.0/16"), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	with := func(ips ...string) *corev1.Service {
		return service("a", func(svc *corev1.Service) { svc.Spec.ExternalIPs = ips })
	}
	for ip, bad := range map[string]bool{"10.43.0.5": true, "10.43.0.10": true, "10.42.3.4": true, "192.168.1.7": false, "::ffff:10.43.0.5": true} {
		err := admit(context.Background(), c, with(ip), nil)
		if (err != nil) != bad || bad && !strings.Contains(err.Error(), "spec.externalIPs[0]") {
			t.Errorf("%s: %v", ip, err)
		}
	}
	if err := admit(context.Background(), c, with("10.43.0.5"), with("10.43.0.5")); err != nil {
		t.Errorf("an update of one that was stored before: %v", err)
	}
}
