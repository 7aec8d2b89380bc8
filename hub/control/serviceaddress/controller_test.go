package serviceaddress

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/control/controltest"
	"petrel.dev/petrel/internal/kube"
)

func service(name string, ips ...string) *corev1.Service {
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: corev1.ServiceSpec{ClusterIPs: ips}}
}

func start(t *testing.T, objs ...kube.Object) (*controltest.Client, *controltest.Events) {
	c, ev := controltest.New(t), &controltest.Events{}
	c.AddIndex(kube.Service, ipIndex, addresses)
	for _, o := range objs {
		c.Put(o)
	}
	l := New(Config{Client: c, Events: ev, CIDR: netip.MustParsePrefix("10.43.0.0/16")})
	go func() { _ = l.Run(t.Context()) }()
	synctest.Wait()
	return c, ev
}

// held returns "IP=namespace/name" of each IPAddress.
func held(c *controltest.Client) (out []string) {
	for _, o := range c.Stored(kube.IPAddress, "") {
		a := o.(*networkingv1.IPAddress)
		out = append(out, a.Name+"="+a.Spec.ParentRef.Namespace+"/"+a.Spec.ParentRef.Name)
	}
	slices.Sort(out)
	return out
}

// TestAddressesFollowTheirServices checks that each cluster IP is held by its Service, as long as it has it.
func TestAddressesFollowTheirServices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		own := &networkingv1.IPAddress{ObjectMeta: metav1.ObjectMeta{Name: "10.43.0.9"},
			Spec: networkingv1.IPAddressSpec{ParentRef: &networkingv1.ParentReference{Resource: "routers", Namespace: "x", Name: "y"}}}
		stale := addressOf("10.43.0.8", service("gone"))
		c, _ := start(t, service("a", "10.43.0.5"), service("headless", "None"), service("both", "10.43.0.6", "fd00::6"), own, stale)
		want := []string{"10.43.0.5=default/a", "10.43.0.6=default/both", "10.43.0.9=x/y", "fd00::6=default/both"}
		if got := held(c); !slices.Equal(got, want) {
			t.Fatalf("%q, want %q", got, want)
		}
		a, _ := control.Get[*networkingv1.IPAddress](c, kube.IPAddress, "", "fd00::6")
		if a.Labels["ipaddress.kubernetes.io/ip-family"] != "IPv6" || a.Labels["ipaddress.kubernetes.io/managed-by"] != "ipallocator.k8s.io" {
			t.Errorf("labels %v", a.Labels)
		}
		c.Remove(kube.Service, "default", "a")
		c.Remove(kube.IPAddress, "", "10.43.0.6") // it is made again
		synctest.Wait()
		c.Put(service("b", "10.43.0.5")) // another has the address now
		synctest.Wait()
		want[0] = "10.43.0.5=default/b"
		if got := held(c); !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
		c.Writes()
		time.Sleep(24 * time.Hour)
		if w := c.Writes(); len(w) != 0 {
			t.Errorf("an idle controller wrote %q", w)
		}
	})
}

// TestDefaultCIDR checks that the network of Services is shown as ready, comes back when it is deleted, and is left alone where it
// is another than the hub's.
func TestDefaultCIDR(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := start(t)
		for range 2 {
			s, ok := control.Get[*networkingv1.ServiceCIDR](c, kube.ServiceCIDR, "", "kubernetes")
			if !ok || !slices.Equal(s.Spec.CIDRs, []string{"10.43.0.0/16"}) || len(s.Status.Conditions) != 1 || s.Status.Conditions[0].Type != "Ready" || s.Status.Conditions[0].Status != "True" {
				t.Fatalf("%+v, %v", s, ok)
			}
			c.Remove(kube.ServiceCIDR, "", "kubernetes")
			synctest.Wait()
		}
	})
	synctest.Test(t, func(t *testing.T) {
		other := &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "kubernetes"}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{"10.99.0.0/16"}}}
		c, ev := start(t, other)
		s, _ := control.Get[*networkingv1.ServiceCIDR](c, kube.ServiceCIDR, "", "kubernetes")
		if got := ev.Take(); len(s.Status.Conditions) != 0 || len(got) != 1 || !strings.HasPrefix(got[0], "Warning KubernetesDefaultServiceCIDRInconsistent ServiceCIDR/kubernetes: The default ServiceCIDR [10.99.0.0/16] does not match") {
			t.Errorf("%+v, events %q", s.Status, got)
		}
	})
}
