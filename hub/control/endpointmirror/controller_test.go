package endpointmirror

//lint:file-ignore SA1019 Endpoints are deprecated, and served for as long as Kubernetes serves them.

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

func database(ips ...string) *corev1.Endpoints {
	sub := corev1.EndpointSubset{Ports: []corev1.EndpointPort{{Name: "sql", Port: 5432}}}
	for _, ip := range ips {
		sub.Addresses = append(sub.Addresses, corev1.EndpointAddress{IP: ip})
	}
	return &corev1.Endpoints{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Endpoints"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "db", UID: "eps", Labels: map[string]string{"team": "x"},
			Annotations: map[string]string{"note": "y", corev1.LastAppliedConfigAnnotation: "{}"}},
		Subsets: []corev1.EndpointSubset{sub}}
}

func without(selector map[string]string) *corev1.Service {
	return &corev1.Service{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Service"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "db", UID: "svc"},
		Spec:       corev1.ServiceSpec{ClusterIP: "10.43.0.5", Selector: selector, Ports: []corev1.ServicePort{{Name: "sql", Port: 5432}}}}
}

func run(t *testing.T, c *controltest.Client) {
	ctl := New(c, nil)
	go func() { _ = ctl.Run(t.Context()) }()
	synctest.Wait()
}

// show prints the mirrored slices, one line each.
func show(t *testing.T, c *controltest.Client) string {
	t.Helper()
	var lines []string
	for _, s := range control.List[*discoveryv1.EndpointSlice](c, kube.EndpointSlice, "default") {
		if s.Labels[discoveryv1.LabelManagedBy] != ManagedBy || s.Labels[discoveryv1.LabelServiceName] != "db" || !metav1.IsControlledBy(s, database()) {
			t.Errorf("labels %v, owners %v", s.Labels, s.OwnerReferences)
		}
		line := fmt.Sprintf("%s %s=%d", s.AddressType, *s.Ports[0].Name, *s.Ports[0].Port)
		for _, e := range s.Endpoints {
			line += fmt.Sprintf(" %s/%v", e.Addresses[0], *e.Conditions.Ready)
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "; ")
}

// A database outside of the cluster: its Endpoints made, changed and removed by hand (case 48).
func TestEndpointsMadeByHandAreMirrored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := controltest.New(t, without(nil))
		run(t, c)
		expect := func(want string) {
			t.Helper()
			synctest.Wait()
			if got := show(t, c); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		}
		expect("")
		c.Put(database("192.0.2.1"))
		expect("IPv4 sql=5432 192.0.2.1/true")
		s := control.List[*discoveryv1.EndpointSlice](c, kube.EndpointSlice, "default")[0]
		if s.Labels["team"] != "x" || s.Annotations["note"] != "y" || s.Annotations[corev1.LastAppliedConfigAnnotation] != "" {
			t.Errorf("labels %v, annotations %v", s.Labels, s.Annotations)
		}
		e := database("192.0.2.1", "192.0.2.2", "2001:db8::1")
		e.Subsets[0].NotReadyAddresses = []corev1.EndpointAddress{{IP: "192.0.2.3"}}
		c.Put(e)
		synctest.Wait()
		if got := show(t, c); !strings.Contains(got, "IPv4 sql=5432 192.0.2.1/true 192.0.2.2/true 192.0.2.3/false") || !strings.Contains(got, "IPv6 sql=5432 2001:db8::1/true") {
			t.Errorf("got %q", got)
		}
		e = database("192.0.2.9")
		e.Subsets[0].Ports[0].Port = 5433
		c.Put(e)
		expect("IPv4 sql=5433 192.0.2.9/true")
		c.Remove(kube.EndpointSlice, "default", control.List[*discoveryv1.EndpointSlice](c, kube.EndpointSlice, "default")[0].Name)
		expect("IPv4 sql=5433 192.0.2.9/true") // it heals
		c.Remove(kube.Endpoints, "default", "db")
		expect("")
		c.Put(database("192.0.2.1"))
		expect("IPv4 sql=5432 192.0.2.1/true")
		c.Remove(kube.Service, "default", "db")
		expect("")
	})
}

func TestEndpointsThatAreLeftAlone(t *testing.T) {
	skip := database("192.0.2.1")
	skip.Labels[discoveryv1.LabelSkipMirror] = "true"
	leader := database("192.0.2.1")
	leader.Annotations[leaderAnnotation] = "{}"
	for name, objs := range map[string][]kube.Object{
		"skip-mirror":         {without(nil), skip},
		"leader election":     {without(nil), leader},
		"Service selects":     {without(map[string]string{"app": "db"}), database("192.0.2.1")},
		"there is no Service": {database("192.0.2.1")},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := controltest.New(t, objs...)
				run(t, c)
				if got := show(t, c); got != "" || len(c.Writes()) != 0 {
					t.Errorf("mirrored: %s, writes %v", got, c.Writes())
				}
			})
		})
	}
}

func TestMirrorIsBounded(t *testing.T) {
	var ips []string
	for i := range 1500 {
		ips = append(ips, fmt.Sprintf("198.51.%d.%d", i/250, i%250))
	}
	slices := mirror(without(nil), database(ips...))
	if len(slices) != 1 || len(slices[0].Endpoints) != maxPerSubset {
		t.Errorf("%d slices, the first with %d addresses", len(slices), len(slices[0].Endpoints))
	}
}
