package loadbalancer

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/control/controltest"
	"petrel.dev/petrel/internal/kube"
)

func node(name string, ready corev1.ConditionStatus, addrs ...corev1.NodeAddress) *corev1.Node {
	return &corev1.Node{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Node"}, ObjectMeta: metav1.ObjectMeta{Name: name},
		Status: corev1.NodeStatus{Addresses: addrs, Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: ready}}}}
}

func internal(ip string) corev1.NodeAddress {
	return corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: ip}
}

func balancer() *corev1.Service {
	return &corev1.Service{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Service"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "lb", UID: "svc"},
		Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, ClusterIP: "10.43.0.5", Ports: []corev1.ServicePort{{Port: 9191}}}}
}

func start(t *testing.T, c *controltest.Client) {
	ctl := New(c, nil)
	go func() { _ = ctl.Run(t.Context()) }()
	synctest.Wait()
}

// expect compares the addresses in the status.
func expect(t *testing.T, c *controltest.Client, want string) {
	t.Helper()
	synctest.Wait()
	svc, _ := control.Get[*corev1.Service](c, kube.Service, "default", "lb")
	var got []string
	for _, i := range svc.Status.LoadBalancer.Ingress {
		got = append(got, i.IP)
	}
	if strings.Join(got, " ") != want {
		t.Errorf("ingress %v, want %q", got, want)
	}
}

// change writes the Service with its spec changed and its status as it is.
func change(c *controltest.Client, f func(*corev1.Service)) {
	svc, _ := control.Get[*corev1.Service](c, kube.Service, "default", "lb")
	now := svc.DeepCopy()
	f(now)
	c.Put(now)
}

// The status follows the nodes (case 11).
func TestStatusHasTheNodesAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := controltest.New(t, balancer())
		start(t, c)
		expect(t, c, "")
		c.Put(node("b", corev1.ConditionTrue, internal("192.0.2.2")))
		c.Put(node("a", corev1.ConditionTrue, internal("192.0.2.1"), corev1.NodeAddress{Type: corev1.NodeHostName, Address: "a"}))
		expect(t, c, "192.0.2.1 192.0.2.2")
		refused := false
		c.Refuse = func(_ string, obj kube.Object, _ string) error {
			_, ok := obj.(*corev1.Service)
			refused = refused || ok
			return nil
		}
		n := node("b", corev1.ConditionTrue, internal("192.0.2.2"))
		n.Status.NodeInfo.KernelVersion = "changed"
		c.Put(n)
		synctest.Wait()
		c.Refuse = nil
		if refused {
			t.Error("a change of a node that means nothing here was written")
		}
		c.Put(node("b", corev1.ConditionUnknown, internal("192.0.2.2")))
		expect(t, c, "192.0.2.1")
		c.Put(node("a", corev1.ConditionUnknown, internal("192.0.2.1")))
		expect(t, c, "192.0.2.1") // all dark: what was true last
		c.Put(node("b", corev1.ConditionTrue, internal("192.0.2.2"), corev1.NodeAddress{Type: corev1.NodeExternalIP, Address: "203.0.113.2"}))
		expect(t, c, "203.0.113.2")
		change(c, func(svc *corev1.Service) { svc.Spec.Type = corev1.ServiceTypeClusterIP })
		expect(t, c, "")
	})
}

// With a thousand nodes the status has some of their addresses, and nodes that come and go do not rewrite it all the time.
func TestStatusOfALargeFleetIsSmall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := func(k int, ready corev1.ConditionStatus) *corev1.Node {
			return node(fmt.Sprintf("node-%04d", k), ready, internal(fmt.Sprintf("192.0.%d.%d", k/250, k%250)))
		}
		c := controltest.New(t, balancer())
		for k := range 1000 {
			c.Put(fleet(k, corev1.ConditionTrue))
		}
		start(t, c)
		first := "192.0.0.0 192.0.0.1 192.0.0.2 192.0.0.3 192.0.0.4 192.0.0.5 192.0.0.6 192.0.0.7 192.0.0.8 192.0.0.9 192.0.0.10 192.0.0.11 192.0.0.12 192.0.0.13 192.0.0.14 192.0.0.15"
		expect(t, c, first)
		c.Writes() // forgotten
		for k := 16; k < 1000; k++ {
			c.Put(fleet(k, corev1.ConditionUnknown))
			c.Put(fleet(k, corev1.ConditionTrue))
		}
		expect(t, c, first)
		if n := len(c.Writes()); n != 0 {
			t.Errorf("%d writes for nodes whose addresses are not in the status", n)
		}
		c.Put(fleet(0, corev1.ConditionUnknown))
		without := strings.TrimPrefix(first, "192.0.0.0 ") + " 192.0.0.16"
		expect(t, c, without)
		c.Put(fleet(0, corev1.ConditionTrue))
		expect(t, c, without)
	})
}

func TestLocalTrafficNeedsLocalEndpoints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := balancer()
		svc.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
		c := controltest.New(t, svc, node("a", corev1.ConditionTrue, internal("192.0.2.1")), node("b", corev1.ConditionTrue, internal("192.0.2.2")))
		start(t, c)
		expect(t, c, "")
		where := "b"
		c.Put(&discoveryv1.EndpointSlice{TypeMeta: metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSlice"},
			ObjectMeta:  metav1.ObjectMeta{Namespace: "default", Name: "lb-1", Labels: map[string]string{discoveryv1.LabelServiceName: "lb"}},
			AddressType: discoveryv1.AddressTypeIPv4, Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"10.42.1.2"}, NodeName: &where}}})
		expect(t, c, "192.0.2.2")
		c.Remove(kube.EndpointSlice, "default", "lb-1")
		expect(t, c, "")
	})
}

// loadBalancerClass names another implementation, whose status this is (case 04).
func TestAnotherClassIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc, class := balancer(), "example.com/other"
		svc.Spec.LoadBalancerClass = &class
		svc.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "203.0.113.99"}}
		c := controltest.New(t, svc, node("a", corev1.ConditionTrue, internal("192.0.2.1")))
		start(t, c)
		expect(t, c, "203.0.113.99")
		if len(c.Writes()) != 0 {
			t.Errorf("writes: %v", c.Writes())
		}
	})
}
