package control_test

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
)

// store is a Reader of pods and of the namespaces "a" and "b".
type store struct {
	control.Reader
	pods []*corev1.Pod
}

func (s *store) List(_ kube.GVK, namespace string) (out []kube.Object) {
	for _, p := range s.pods {
		if p.Namespace == namespace {
			out = append(out, p)
		}
	}
	return out
}

func (s *store) Get(_ kube.GVK, _, name string) (kube.Object, bool) {
	return &corev1.Namespace{}, slices.Contains([]string{"a", "b"}, name)
}

func TestOrphans(t *testing.T) {
	pod := func(ns, name string, controlled, leaving bool) *corev1.Pod {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}}
		if controlled {
			p.OwnerReferences = []metav1.OwnerReference{{Kind: "ReplicaSet", Name: "x", Controller: new(true)}}
		}
		if leaving {
			p.DeletionTimestamp = &metav1.Time{}
		}
		return p
	}
	s := &store{pods: []*corev1.Pod{pod("a", "bare", false, false), pod("a", "owned", true, false), pod("a", "leaving", false, true), pod("b", "other", false, false)}}
	o := control.NewOrphans(s, kube.Pod)
	want := func(ns string, names ...string) {
		t.Helper()
		var got []string
		for _, obj := range o.In(ns) {
			got = append(got, obj.GetName())
		}
		if slices.Sort(got); !slices.Equal(got, names) {
			t.Errorf("namespace %s: %v, want %v", ns, got, names)
		}
	}
	saw := func(old, now *corev1.Pod) {
		c := control.Change{GVK: kube.Pod}
		if old != nil {
			c.Old = old
		}
		if now != nil {
			c.New = now
		}
		o.Saw(c)
	}
	want("a", "bare") // what is there before the first search
	saw(nil, pod("a", "new", false, false))
	want("a", "bare", "new")
	saw(pod("a", "new", false, false), pod("a", "new", true, false)) // adopted
	want("a", "bare")
	saw(pod("a", "owned", true, false), pod("a", "owned", false, false)) // released
	want("a", "bare", "owned")
	saw(pod("a", "owned", false, false), pod("a", "owned", false, true))
	want("a", "bare")
	saw(pod("a", "bare", false, false), nil)
	want("a")
	saw(nil, pod("b", "unsearched", false, false)) // found in the reader, which has it then
	s.pods = append(s.pods, pod("b", "unsearched", false, false))
	want("b", "other", "unsearched")

	// A namespace that is gone is searched again when it comes back.
	s.pods = []*corev1.Pod{pod("gone", "p", false, false)}
	want("gone", "p")
	want("a")
	s.pods = nil
	o.In("c")
	want("gone")
}
