package bootstrap

//lint:file-ignore SA1019 Endpoints are deprecated, and served for as long as Kubernetes serves them.

import (
	"net/netip"
	"testing"
	"testing/synctest"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/control/controltest"
	"petrel.dev/petrel/internal/kube"
)

func run(t *testing.T, c *controltest.Client, addr string) {
	ctl := New(Config{Client: c, Address: netip.MustParseAddrPort(addr), ServiceIP: netip.MustParseAddr("10.43.0.1"),
		DNSIP: netip.MustParseAddr("10.43.0.10")})
	go func() { _ = ctl.Run(t.Context()) }()
	synctest.Wait()
}

func TestClusterHasWhatItNeeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := controltest.New(t)
		run(t, c, "192.0.2.7:6443")
		for _, ns := range []string{"default", "kube-system", "kube-public", "kube-node-lease"} {
			if _, ok := c.Get(kube.Namespace, "", ns); !ok {
				t.Errorf("no namespace %s", ns)
			}
		}
		svc, ok := control.Get[*corev1.Service](c, kube.Service, "default", "kubernetes")
		if !ok || svc.Spec.ClusterIP != "10.43.0.1" || svc.Spec.Ports[0].Port != 443 || svc.Spec.Ports[0].TargetPort.IntValue() != 6443 {
			t.Errorf("service: %+v", svc)
		}
		check := func(want string) {
			t.Helper()
			s, ok := control.Get[*discoveryv1.EndpointSlice](c, kube.EndpointSlice, "default", "kubernetes")
			if !ok || s.Labels[discoveryv1.LabelServiceName] != "kubernetes" || len(s.Endpoints) != 1 || s.Endpoints[0].Addresses[0] != want || *s.Ports[0].Port != 6443 {
				t.Errorf("slice: %+v", s)
			}
			e, ok := control.Get[*corev1.Endpoints](c, kube.Endpoints, "default", "kubernetes")
			if !ok || e.Subsets[0].Addresses[0].IP != want {
				t.Errorf("endpoints: %+v", e)
			}
		}
		check("192.0.2.7")
		c.Remove(kube.EndpointSlice, "default", "kubernetes")
		c.Remove(kube.Namespace, "", "kube-public")
		c.Remove(kube.PriorityClass, "", "system-node-critical")
		synctest.Wait()
		check("192.0.2.7")
		if _, ok := c.Get(kube.Namespace, "", "kube-public"); !ok {
			t.Error("a deleted system namespace should come back")
		}
		for name, value := range map[string]int32{"system-node-critical": 2000001000, "system-cluster-critical": 2000000000} {
			class, ok := control.Get[*schedulingv1.PriorityClass](c, kube.PriorityClass, "", name)
			if !ok || class.Value != value {
				t.Errorf("priority class %s: %+v", name, class)
			}
		}
	})
}

func TestNewAddressReplacesTheOld(t *testing.T) {
	var kept []kube.Object
	for _, addr := range []string{"192.0.2.7", "192.0.2.8"} { // the hub is started again elsewhere
		synctest.Test(t, func(t *testing.T) {
			c := controltest.New(t, kept...)
			run(t, c, addr+":6443")
			s, _ := control.Get[*discoveryv1.EndpointSlice](c, kube.EndpointSlice, "default", "kubernetes")
			if len(s.Endpoints) != 1 || s.Endpoints[0].Addresses[0] != addr {
				t.Errorf("slice: %+v", s)
			}
			kept = c.Stored(kube.EndpointSlice, "default")
		})
	}
}

func TestLoopbackIsNoEndpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := controltest.New(t)
		run(t, c, "127.0.0.1:6443")
		s, _ := control.Get[*discoveryv1.EndpointSlice](c, kube.EndpointSlice, "default", "kubernetes")
		if len(s.Endpoints) != 0 {
			t.Errorf("slice: %+v", s)
		}
	})
}

func TestPublishedObjectsAreKept(t *testing.T) {
	published := &corev1.ConfigMap{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "kube-public", Name: "petrel-cluster"},
		Data:       map[string]string{"cluster-id": "c1"},
	}
	synctest.Test(t, func(t *testing.T) {
		c := controltest.New(t)
		ctl := New(Config{Client: c, Address: netip.MustParseAddrPort("192.0.2.7:6443"), ServiceIP: netip.MustParseAddr("10.43.0.1"), Keep: []kube.Object{published}})
		go func() { _ = ctl.Run(t.Context()) }()
		synctest.Wait()
		now, ok := control.Get[*corev1.ConfigMap](c, kube.ConfigMap, "kube-public", "petrel-cluster")
		if !ok || now.Data["cluster-id"] != "c1" {
			t.Fatalf("config map: %+v", now)
		}
		edited := now.DeepCopy()
		edited.Data = map[string]string{"cluster-id": "somebody else's"}
		if _, err := c.Update(t.Context(), edited, ""); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if now, _ := control.Get[*corev1.ConfigMap](c, kube.ConfigMap, "kube-public", "petrel-cluster"); now.Data["cluster-id"] != "c1" {
			t.Errorf("an edit stayed: %v", now.Data)
		}
		c.Remove(kube.ConfigMap, "kube-public", "petrel-cluster")
		synctest.Wait()
		if _, ok := c.Get(kube.ConfigMap, "kube-public", "petrel-cluster"); !ok {
			t.Error("it should come back")
		}
	})
}

// Public charts write "resolver kube-dns.kube-system.svc.cluster.local", and tools look for the label (case 10).
func TestDNSHasItsService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := controltest.New(t)
		run(t, c, "192.0.2.7:6443")
		check := func() {
			t.Helper()
			svc, ok := control.Get[*corev1.Service](c, kube.Service, "kube-system", "kube-dns")
			if !ok || svc.Labels["k8s-app"] != "kube-dns" || svc.Spec.ClusterIP != "10.43.0.10" || len(svc.Spec.Ports) != 2 ||
				svc.Spec.Ports[0].Protocol != corev1.ProtocolUDP || svc.Spec.Ports[1].Protocol != corev1.ProtocolTCP {
				t.Errorf("kube-dns: %+v", svc)
			}
		}
		check()
		c.Remove(kube.Service, "kube-system", "kube-dns")
		synctest.Wait()
		check()
		svc, _ := control.Get[*corev1.Service](c, kube.Service, "kube-system", "kube-dns")
		changed := svc.DeepCopy()
		changed.Labels, changed.Spec.Ports = nil, changed.Spec.Ports[:1]
		c.Put(changed)
		synctest.Wait()
		check()
	})
}
