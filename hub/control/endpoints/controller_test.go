package endpoints

//lint:file-ignore SA1019 Endpoints are deprecated, and served for as long as Kubernetes serves them.

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/control/controltest"
	"petrel.dev/petrel/internal/kube"
)

func service() *corev1.Service {
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", UID: "svc", Labels: map[string]string{"team": "x"}},
		Spec: corev1.ServiceSpec{ClusterIP: "10.43.0.5", Selector: map[string]string{"app": "web"},
			Ports: []corev1.ServicePort{{Name: "http", Port: 80, TargetPort: intstr.FromString("web")}}}}
}

func pod(name, ip string, change ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Labels: map[string]string{"app": "web"}},
		Spec: corev1.PodSpec{NodeName: "n1", Containers: []corev1.Container{{Name: "c", Ports: []corev1.ContainerPort{{Name: "web", ContainerPort: 8080}}}}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIP: ip, PodIPs: []corev1.PodIP{{IP: ip}},
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}}}
	for _, f := range change {
		f(p)
	}
	return p
}

func notReady(p *corev1.Pod) { p.Status.Conditions = nil }
func leaving(p *corev1.Pod) {
	now := metav1.Now()
	p.DeletionTimestamp = &now
}
func finished(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }

func start(t *testing.T, c *controltest.Client) {
	ctl := New(c, nil)
	go func() { _ = ctl.Run(t.Context()) }()
	synctest.Wait()
}

// show prints slices and Endpoints, one line for each address.
func show(c *controltest.Client) string {
	var b strings.Builder
	for _, s := range control.List[*discoveryv1.EndpointSlice](c, kube.EndpointSlice, "default") {
		fmt.Fprintf(&b, "slice %s [%s]\n", s.AddressType, portsKey(s.Ports))
		for _, e := range s.Endpoints {
			fmt.Fprintf(&b, "  %s %s ready=%v serving=%v terminating=%v", e.Addresses[0], e.TargetRef.Name, *e.Conditions.Ready, *e.Conditions.Serving, *e.Conditions.Terminating)
			if e.Hostname != nil {
				fmt.Fprintf(&b, " hostname=%s", *e.Hostname)
			}
			if e.NodeName != nil {
				fmt.Fprintf(&b, " node=%s", *e.NodeName)
			}
			if e.Zone != nil {
				fmt.Fprintf(&b, " zone=%s", *e.Zone)
			}
			b.WriteString("\n")
		}
	}
	for _, e := range control.List[*corev1.Endpoints](c, kube.Endpoints, "default") {
		for _, s := range e.Subsets {
			var ports []string
			for _, p := range s.Ports {
				ports = append(ports, fmt.Sprintf("%s=%d", p.Name, p.Port))
			}
			fmt.Fprintf(&b, "endpoints %v", ports)
			for _, a := range s.Addresses {
				fmt.Fprintf(&b, " %s", a.IP)
			}
			for _, a := range s.NotReadyAddresses {
				fmt.Fprintf(&b, " (%s)", a.IP)
			}
			b.WriteString("\n")
		}
	}
	return b.String()
}

func TestEndpoints(t *testing.T) {
	zoned := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", Labels: map[string]string{corev1.LabelTopologyZone: "quay"}}}
	other := func(p *corev1.Pod) { p.Spec.Containers[0].Ports[0].ContainerPort = 9090 }
	tests := []struct {
		name string
		svc  func(*corev1.Service)
		pods []kube.Object
		want string
	}{
		{"no pods", nil, nil, "slice IPv4 []\n"},
		{"states", nil, []kube.Object{pod("a", "10.42.0.2"), pod("b", "10.42.0.3", notReady), pod("c", "10.42.0.4", leaving), pod("d", "10.42.0.5", finished), pod("e", "")},
			`slice IPv4 [http=8080/TCP/]
  10.42.0.2 a ready=true serving=true terminating=false node=n1 zone=quay
  10.42.0.3 b ready=false serving=false terminating=false node=n1 zone=quay
  10.42.0.4 c ready=false serving=true terminating=true node=n1 zone=quay
endpoints [http=8080] 10.42.0.2 (10.42.0.3)
`},
		{"publish not ready", func(s *corev1.Service) { s.Spec.PublishNotReadyAddresses = true },
			[]kube.Object{pod("b", "10.42.0.3", notReady), pod("c", "10.42.0.4", leaving)},
			`slice IPv4 [http=8080/TCP/]
  10.42.0.3 b ready=true serving=false terminating=false node=n1 zone=quay
  10.42.0.4 c ready=true serving=true terminating=true node=n1 zone=quay
endpoints [http=8080] 10.42.0.3 10.42.0.4
`},
		{"one name, two numbers", nil, []kube.Object{pod("a", "10.42.0.2"), pod("b", "10.42.0.3", other)},
			`slice IPv4 [http=8080/TCP/]
  10.42.0.2 a ready=true serving=true terminating=false node=n1 zone=quay
slice IPv4 [http=9090/TCP/]
  10.42.0.3 b ready=true serving=true terminating=false node=n1 zone=quay
endpoints [http=8080] 10.42.0.2
endpoints [http=9090] 10.42.0.3
`},
		{"headless with hostnames", func(s *corev1.Service) { s.Spec.ClusterIP = "None"; s.Spec.Ports = nil },
			[]kube.Object{pod("a", "10.42.0.2", func(p *corev1.Pod) { p.Spec.Hostname, p.Spec.Subdomain = "host-a", "web" }),
				pod("b", "10.42.0.3", func(p *corev1.Pod) { p.Spec.Hostname, p.Spec.Subdomain = "host-b", "else" })},
			`slice IPv4 []
  10.42.0.2 a ready=true serving=true terminating=false hostname=host-a node=n1 zone=quay
  10.42.0.3 b ready=true serving=true terminating=false node=n1 zone=quay
endpoints [] 10.42.0.2 10.42.0.3
`},
		{"both families", func(s *corev1.Service) {
			s.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol}
		},
			[]kube.Object{pod("a", "10.42.0.2", func(p *corev1.Pod) { p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: "fd00::2"}) })},
			`slice IPv4 [http=8080/TCP/]
  10.42.0.2 a ready=true serving=true terminating=false node=n1 zone=quay
slice IPv6 [http=8080/TCP/]
  fd00::2 a ready=true serving=true terminating=false node=n1 zone=quay
endpoints [http=8080] 10.42.0.2
`},
		{"addresses that no endpoint may have", nil,
			[]kube.Object{pod("a", "127.0.0.1"), pod("b", "169.254.7.7"), pod("c", "10.42.0.4"), pod("d", "::ffff:10.42.0.5"), pod("e", "nonsense")},
			`slice IPv4 [http=8080/TCP/]
  10.42.0.4 c ready=true serving=true terminating=false node=n1 zone=quay
endpoints [http=8080] 10.42.0.4
`},
		{"no selector", func(s *corev1.Service) { s.Spec.Selector = nil }, []kube.Object{pod("a", "10.42.0.2")}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				svc := service()
				if tt.svc != nil {
					tt.svc(svc)
				}
				c := controltest.New(t, append(tt.pods, svc, zoned)...)
				start(t, c)
				got := show(c)
				if got != tt.want && sorted(got) != sorted(tt.want) {
					t.Errorf("got\n%swant\n%s", got, tt.want)
				}
			})
		})
	}
}

// sorted makes the order of slices, which follows their names, not matter.
func sorted(s string) string {
	parts := strings.Split(s, "slice ")
	for i := range parts {
		for j := i + 1; j < len(parts); j++ {
			if parts[j] < parts[i] {
				parts[i], parts[j] = parts[j], parts[i]
			}
		}
	}
	return strings.ReplaceAll(strings.Join(parts, ""), "\n", "")
}

func TestSlicesChangeAsLittleAsPossible(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := controltest.New(t, service())
		for i := range 250 {
			c.Put(pod(fmt.Sprintf("p%03d", i), fmt.Sprintf("10.42.%d.%d", i/200, i%200+1)))
		}
		start(t, c)
		slices := func() []*discoveryv1.EndpointSlice {
			return control.List[*discoveryv1.EndpointSlice](c, kube.EndpointSlice, "default")
		}
		total := 0
		for _, s := range slices() {
			if len(s.Endpoints) > 100 {
				t.Errorf("%d endpoints in one slice", len(s.Endpoints))
			}
			total += len(s.Endpoints)
			if s.Labels[discoveryv1.LabelServiceName] != "web" || s.Labels[discoveryv1.LabelManagedBy] != ManagedBy || s.Labels["team"] != "x" {
				t.Errorf("labels: %v", s.Labels)
			}
		}
		if total != 250 || len(slices()) != 3 {
			t.Errorf("%d endpoints in %d slices, want 250 in 3", total, len(slices()))
		}
		c.Writes()
		time.Sleep(2 * time.Second) // past what was gathered for so many pods
		c.Put(pod("p007", "10.42.0.8", notReady))
		time.Sleep(2 * time.Second)
		if w := c.Writes(); len(w) != 2 {
			t.Errorf("one pod's change wrote %q, want one slice and the Endpoints", w)
		}
		c.Remove(kube.Service, "default", "web")
		time.Sleep(2 * time.Second)
		if e := c.List(kube.Endpoints, ""); len(e) != 0 {
			t.Errorf("Endpoints outlive their Service: %v", e)
		}
	})
}

func TestEndpointsOfOthersAreLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := service()
		svc.Spec.Selector = nil
		manual := &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"},
			Subsets: []corev1.EndpointSubset{{Addresses: []corev1.EndpointAddress{{IP: "192.0.2.1"}}}}}
		c := controltest.New(t, svc, manual)
		start(t, c)
		if w := c.Writes(); len(w) != 0 {
			t.Errorf("wrote %q", w)
		}
	})
}
