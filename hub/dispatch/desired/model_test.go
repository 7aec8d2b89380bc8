package desired

import (
	"maps"
	"testing"

	"pgregory.net/rapid"

	"petrel.dev/petrel/internal/kube"
)

// TestChangesComeToWhatComposingMakes checks that whatever changes in which order, and whenever sessions begin and end, what
// has gone out comes to the sets that a hub would compose that starts now. Nothing is removed that is not there.
func TestChangesComeToWhatComposingMakes(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(rt, Table())
		pick := func(what string, from ...string) string { return rapid.SampledFrom(from).Draw(rt, what) }
		name := func() string { return pick("name", "a", "b", "c") }
		node := func() string { return pick("node", "n1", "n2") }
		value := func(key string, from ...string) string { return key + "=" + pick(key, from...) }
		do := func(f ...string) { w.command(f) }
		remove := func(kind string, gvk kube.GVK, namespace string) func(*rapid.T) {
			return func(*rapid.T) {
				n := name()
				if kind == "node" {
					n = node()
				}
				if _, ok := w.Get(gvk, namespace, n); ok {
					do("delete", kind, n)
				}
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"": func(*rapid.T) { w.checkFresh() },
			"pod": func(*rapid.T) {
				n := name()
				do("pod", n, "uid=pod-"+n+pick("uid", "1", "2"), value("on", "", "n1", "n2"), value("configmap", "", "a", "a,b", "c"), value("secret", "", "a", "b"), value("phase", "", "Failed"))
			},
			"configmap": func(*rapid.T) {
				n := name()
				do("configmap", n, "uid=cm-"+n+pick("uid", "1", "2"), value("data", "x", "y"))
			},
			"secret": func(*rapid.T) {
				n := name()
				do("secret", n, "uid=secret-"+n+pick("uid", "1", "2"), value("data", "x", "y"))
			},
			"service": func(*rapid.T) {
				n := name()
				do("service", n, "uid=svc-"+n+pick("uid", "1", "2"), value("ip", "10.43.0.1", "10.43.0.2"))
			},
			"slice": func(*rapid.T) { do("slice", name(), value("of", "", "a", "b"), value("ip", "10.42.0.1", "10.42.0.2")) },
			"node": func(*rapid.T) {
				n := node()
				do("node", n, "uid="+n+pick("uid", "1", "2"), value("cidr", "", "10.42.1.0/24"), value("ip", "", "192.0.2.1"))
			},
			"delete pod":       remove("pod", kube.Pod, "ns"),
			"delete configmap": remove("configmap", kube.ConfigMap, "ns"),
			"delete secret":    remove("secret", kube.Secret, "ns"),
			"delete service":   remove("service", kube.Service, "ns"),
			"delete slice":     remove("slice", kube.EndpointSlice, "ns"),
			"delete node":      remove("node", kube.Node, ""),
			"open": func(*rapid.T) {
				if n := node(); w.nodes[n] == nil {
					do("open", n, "empty")
				}
			},
			"close":  func(*rapid.T) { do("close", node()) },
			"misses": func(*rapid.T) { do("misses", name()) },
			"release": func(*rapid.T) {
				n := name()
				do("has", n)
				do("release", node(), "pod-"+n+pick("uid", "1", "2"))
			},
			"cancel": func(*rapid.T) { do("cancel", node(), "pod-"+name()+pick("uid", "1", "2")) },
			"pass":   func(*rapid.T) { do("pass", pick("time", "1s", "4s")) },
		})
		do("pass", patience.String())
		w.checkFresh()
		for n := range w.nodes {
			if w.sets.Pending(n) {
				rt.Errorf("a pod of %s is still pending", n)
			}
		}
		for _, n := range []string{"n1", "n2"} {
			do("close", n)
		}
		for _, r := range w.sets.referred {
			if len(r.objects) > 0 {
				rt.Errorf("%s: %d are kept without a session", r.Kind, len(r.objects))
			}
		}
	})
}

// checkFresh compares with Sets that begin now.
func (w *world) checkFresh() {
	w.t.Helper()
	fresh := newWorld(w.t, Table())
	for gvk, objects := range w.objects {
		fresh.objects[gvk] = map[string]kube.Object{}
		for key, o := range objects {
			fresh.change(gvk, key, o)
		}
	}
	fresh.drain()
	if !maps.Equal(fresh.common, w.common) {
		w.t.Fatalf("shared is\n%v, composed\n%v", w.common, fresh.common)
	}
	for node, set := range w.nodes {
		if w.sets.Pending(node) {
			continue // what is sent of it is checked once it is complete
		}
		fresh.command([]string{"open", node, "empty"})
		if !maps.Equal(fresh.nodes[node], set) {
			w.t.Fatalf("%s has\n%v, composed\n%v", node, set, fresh.nodes[node])
		}
	}
}
