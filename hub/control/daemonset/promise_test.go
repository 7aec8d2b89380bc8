package daemonset

import (
	"fmt"
	"testing"
	"testing/synctest"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"pgregory.net/rapid"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
)

// What a rolling update promises holds at every moment, whichever pods become ready when, and whichever nodes are dark: no more than maxUnavailable
// nodes in reach are without a ready pod; with maxSurge none is; pods on dark nodes are left alone; and in the end all nodes in reach are updated.
func TestRolloutKeepsItsPromises(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		synctest.Test(t, func(t *testing.T) {
			nodes := rapid.IntRange(1, 6).Draw(r, "nodes")
			ds := daemons("v1")
			limit, surge := rapid.IntRange(1, 3).Draw(r, "maxUnavailable"), rapid.Bool().Draw(r, "surge")
			u := ds.Spec.UpdateStrategy.RollingUpdate
			*u.MaxUnavailable = intstr.FromInt(limit)
			if surge {
				*u.MaxUnavailable, *u.MaxSurge = intstr.FromInt(0), intstr.FromInt(limit)
				limit = 0
			}
			w := newWorld(t, ds)
			dark := map[string]string{} // the pod that was there, by node
			for i := range nodes {
				w.c.Put(node1(fmt.Sprintf("n%d", i)))
			}
			w.settle()
			w.turn()
			for i := range nodes {
				if name := fmt.Sprintf("n%d", i); rapid.IntRange(0, 3).Draw(r, "dark") == 0 {
					dark[name] = w.on(name)[0].Name
					w.setDark(name, true)
				}
			}
			w.settle()
			next := w.set()
			next.Spec.Template.Spec.Containers[0].Image = "v2"
			next.Annotations = nil
			if _, err := w.c.Update(t.Context(), next, ""); err != nil {
				t.Fatal(err)
			}
			check := func() {
				down := 0
				for i := range nodes {
					name := fmt.Sprintf("n%d", i)
					ready := 0
					for _, p := range w.on(name) {
						if control.PodReady(p) && p.DeletionTimestamp == nil {
							ready++
						}
					}
					if was, ok := dark[name]; ok {
						if pods := w.on(name); len(pods) != 1 || pods[0].Name != was || pods[0].DeletionTimestamp != nil {
							r.Fatalf("the pod on dark node %s has been touched", name)
						}
					} else if ready == 0 {
						down++
					}
				}
				if down > limit {
					r.Fatalf("%d nodes are without a ready pod, allowed are %d", down, limit)
				}
			}
			for range 8 * nodes {
				w.settle()
				check()
				w.turn()
				check()
			}
			for i := range nodes {
				name := fmt.Sprintf("n%d", i)
				if _, ok := dark[name]; ok {
					continue
				}
				if pods := w.on(name); len(pods) != 1 || pods[0].Spec.Containers[0].Image != "v2" {
					r.Fatalf("%s has %d pods, and not one of v2 alone", name, len(pods))
				}
			}
		})
	})
}

// on returns the pods on a node, or meant for it.
func (w *world) on(node string) []*corev1.Pod {
	var out []*corev1.Pod
	for _, o := range w.c.Stored(kube.Pod, "") {
		if p := o.(*corev1.Pod); target(p) == node {
			out = append(out, p)
		}
	}
	return out
}
