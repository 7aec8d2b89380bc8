package endpoints

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/control/controltest"
	"petrel.dev/petrel/internal/kube"
)

// pods returns so many endpoints, from a first one.
func endpointsOf(first, n int) []discoveryv1.Endpoint {
	out := []discoveryv1.Endpoint{}
	for i := range n {
		p := pod(fmt.Sprintf("p%04d", first+i), fmt.Sprintf("10.42.%d.%d", (first+i)/200, (first+i)%200+1))
		p.UID = types.UID(p.Name)
		out = append(out, endpoint(service(), p, p.Status.PodIP, func(string) string { return "" }))
	}
	return out
}

// Endpoints go where something is written anyway, then into the one slice that all of them fit best, then into new slices: Kubernetes' rules.
func TestPacking(t *testing.T) {
	svc := service()
	for _, tt := range []struct {
		name string
		have [][2]int // of each slice: first pod, how many
		want [][2]int // ranges of pods
		get  string   // how many each has afterwards, and how many are written
	}{
		{"a first one", nil, [][2]int{{0, 250}}, "100 100 50; 3 written"},
		{"one more fits one slice", [][2]int{{0, 100}, {100, 40}, {200, 90}}, [][2]int{{0, 140}, {200, 91}}, "100 40 91; 1 written"},
		{"five more fit the fullest with room for them", [][2]int{{0, 98}, {100, 40}, {200, 90}}, [][2]int{{0, 98}, {100, 40}, {200, 95}}, "98 40 95; 1 written"},
		{"one goes, one comes: one write", [][2]int{{0, 100}, {100, 40}}, [][2]int{{1, 99}, {100, 41}}, "100 40; 1 written"},
		{"too many for one: a new one", [][2]int{{0, 60}, {100, 60}}, [][2]int{{0, 60}, {100, 60}, {200, 50}}, "60 60 50; 1 written"},
		{"one that is empty goes", [][2]int{{0, 60}, {100, 60}}, [][2]int{{0, 60}}, "60; 1 written"},
		{"one that would be empty is filled anew", [][2]int{{0, 100}, {100, 60}}, [][2]int{{0, 100}, {300, 70}}, "100 70; 1 written"},
		{"nothing changes", [][2]int{{0, 100}, {100, 60}}, [][2]int{{0, 160}}, "100 60; 0 written"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			taken := map[string]bool{}
			g := &group{family: discoveryv1.AddressTypeIPv4, ports: []discoveryv1.EndpointPort{}}
			g.key = keyOf(g.family, g.ports)
			var existing []*discoveryv1.EndpointSlice
			for _, h := range tt.have {
				s := newSlice(svc, g, taken)
				s.Endpoints = endpointsOf(h[0], h[1])
				existing = append(existing, s)
			}
			for _, w := range tt.want {
				g.endpoints = append(g.endpoints, endpointsOf(w[0], w[1])...)
			}
			after := map[string]int{}
			var order []string
			note := func(s *discoveryv1.EndpointSlice) {
				if _, ok := after[s.Name]; !ok {
					order = append(order, s.Name)
				}
				after[s.Name] = len(s.Endpoints)
			}
			for _, s := range existing {
				note(s)
			}
			writes := planGroup(svc, existing, g, taken)
			for _, w := range writes {
				if w.Delete {
					delete(after, w.Old.GetName())
					continue
				}
				note(w.Object.(*discoveryv1.EndpointSlice))
			}
			var sizes []string
			for _, name := range order {
				if n, ok := after[name]; ok {
					sizes = append(sizes, fmt.Sprint(n))
				}
			}
			if got := fmt.Sprintf("%s; %d written", strings.Join(sizes, " "), len(writes)); got != tt.get {
				t.Errorf("got %s, want %s", got, tt.get)
			}
		})
	}
}

// Hints are for ready endpoints only, and follow the field: of the zone, of the node too, of neither.
func TestHints(t *testing.T) {
	zone := func(node string) string { return map[string]string{"n1": "quay"}[node] }
	elsewhere := func(p *corev1.Pod) { p.Spec.NodeName = "n2" }
	for _, tt := range []struct{ distribution, want string }{
		{"", "a - b - c -"},
		{"PreferClose", "a zone=quay b - c -"},
		{"PreferSameZone", "a zone=quay b - c -"},
		{"PreferSameNode", "a zone=quay node=n1 b - c node=n2"},
		{"example.com/other", "a - b - c -"},
	} {
		svc := service()
		if tt.distribution != "" {
			svc.Spec.TrafficDistribution = &tt.distribution
		}
		var got []string
		for _, p := range []*corev1.Pod{pod("a", "10.42.0.2"), pod("b", "10.42.0.3", notReady), pod("c", "10.42.0.4", elsewhere)} {
			e := endpoint(svc, p, p.Status.PodIP, zone)
			got = append(got, p.Name)
			if e.Hints == nil {
				got = append(got, "-")
				continue
			}
			for _, z := range e.Hints.ForZones {
				got = append(got, "zone="+z.Name)
			}
			for _, n := range e.Hints.ForNodes {
				got = append(got, "node="+n.Name)
			}
		}
		if s := strings.Join(got, " "); s != tt.want {
			t.Errorf("%q: %s, want %s", tt.distribution, s, tt.want)
		}
	}
}

// A change of a quiet Service is written at once; those that follow are gathered, and none is lost.
func TestChangesAreGathered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := controltest.New(t, service())
		const pods = 50
		for i := range pods {
			c.Put(pod(fmt.Sprintf("p%03d", i), fmt.Sprintf("10.42.0.%d", i+1), notReady))
		}
		start(t, c)
		time.Sleep(time.Minute)
		c.Writes()
		c.Put(pod("p000", "10.42.0.1"))
		synctest.Wait()
		if w := c.Writes(); len(w) != 2 {
			t.Errorf("the first change wrote %q, want a slice and the Endpoints", w)
		}
		for i := range pods {
			c.Put(pod(fmt.Sprintf("p%03d", i), fmt.Sprintf("10.42.0.%d", i+1)))
			time.Sleep(5 * time.Millisecond)
		}
		time.Sleep(gather(pods))
		if w := c.Writes(); len(w) > 4 {
			t.Errorf("changes within %v wrote %d times: %q", gather(pods), len(w), w)
		}
		for _, s := range control.List[*discoveryv1.EndpointSlice](c, kube.EndpointSlice, "default") {
			for _, e := range s.Endpoints {
				if !*e.Conditions.Ready {
					t.Errorf("%s is not ready", e.TargetRef.Name)
				}
			}
		}
	})
}

// Whatever changes, each Service has the pods that its selector matches, and the change of a pod names the Services that it concerns.
func TestSelectionIsWhatSelectorsMatch(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := newSelection()
		services, pods := map[control.Key]*corev1.Service{}, map[string]*corev1.Pod{}
		all := func() (out []kube.Object) {
			for _, p := range pods {
				out = append(out, p)
			}
			return out
		}
		labels := func(least int) map[string]string {
			m := rapid.MapOfN(rapid.SampledFrom([]string{"app", "tier", "made-by"}), rapid.SampledFrom([]string{"x", "y"}), least, 3).Draw(rt, "labels")
			return m
		}
		name := func() string { return rapid.SampledFrom([]string{"a", "b", "c"}).Draw(rt, "name") }
		matches := func(svc *corev1.Service, p *corev1.Pod) bool {
			for k, v := range svc.Spec.Selector {
				if p.Labels[k] != v {
					return false
				}
			}
			return true
		}
		rt.Repeat(map[string]func(*rapid.T){
			"service": func(*rapid.T) {
				key := control.Key{Namespace: "default", Name: name()}
				services[key] = &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: key.Name}, Spec: corev1.ServiceSpec{Selector: labels(1)}}
				s.service(key, services[key], all)
			},
			"no service": func(*rapid.T) {
				key := control.Key{Namespace: "default", Name: name()}
				delete(services, key)
				s.service(key, nil, all)
			},
			"pod": func(*rapid.T) {
				n := name()
				var before map[string]string
				old := pods[n]
				if old != nil {
					before = old.Labels
				}
				p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: n, Labels: labels(0)}}
				pods[n] = p
				keys := s.pod("default", n, before, p.Labels, false)
				concerned := 0
				for _, svc := range services {
					if matches(svc, p) || old != nil && matches(svc, old) {
						concerned++
					}
				}
				if len(keys) != concerned {
					rt.Errorf("pod concerns %v, of %d Services", keys, concerned)
				}
			},
			"no pod": func(*rapid.T) {
				n := name()
				if old := pods[n]; old != nil {
					delete(pods, n)
					s.pod("default", n, old.Labels, nil, true)
				}
			},
			"": func(*rapid.T) {
				for key, svc := range services {
					want := map[string]bool{}
					for n, p := range pods {
						if matches(svc, p) {
							want[n] = true
						}
					}
					got := s.services[key].pods
					for n := range got {
						if !want[n] {
							rt.Errorf("%v selects %s", key, n)
						}
					}
					if len(got) != len(want) {
						rt.Errorf("%v selects %v, want %v", key, got, want)
					}
				}
				n := 0
				for _, under := range s.byLabel {
					n += len(under)
				}
				if n != len(services) || len(s.services) != len(services) {
					rt.Errorf("%d Services under labels, %d of %d known", n, len(s.services), len(services))
				}
			},
		})
	})
}
