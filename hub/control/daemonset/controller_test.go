package daemonset

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/control/revision"
	"petrel.dev/petrel/internal/kube"
)

func (w *world) revisions() string {
	var b strings.Builder
	for n := int64(1); n < 20; n++ {
		for _, cr := range control.List[*appsv1.ControllerRevision](w.c, kube.ControllerRevision, "") {
			if cr.Revision != n {
				continue
			}
			t, err := revision.Template(cr)
			if err != nil {
				w.t.Fatal(err)
			}
			mark := ""
			if t.Spec.Containers[0].Image == w.set().Spec.Template.Spec.Containers[0].Image {
				mark = " *"
			}
			fmt.Fprintf(&b, "%d %s%s\n", cr.Revision, t.Spec.Containers[0].Image, mark)
		}
	}
	return b.String()
}

func node1(name string) *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
}

// A pod names its node in its affinity, and tolerates what pods of DaemonSets tolerate on Kubernetes.
func TestPodOfANode(t *testing.T) {
	ds := daemons("v1")
	ds.Spec.Template.Spec.HostNetwork = true
	ds.Spec.Template.Spec.Tolerations = []corev1.Toleration{
		{Key: kube.TaintNotReady, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: new(int64)}}
	p := newPod(ds, "abc", "n1")
	if target(p) != "n1" || p.Spec.NodeName != "" {
		t.Errorf("meant for %q, bound to %q", target(p), p.Spec.NodeName)
	}
	if p.Labels["controller-revision-hash"] != "abc" || p.Labels["pod-template-generation"] != "1" || p.Labels["app"] != "agent" || p.GenerateName != "agent-" {
		t.Errorf("metadata %+v", p.ObjectMeta)
	}
	var got []string
	for _, tol := range p.Spec.Tolerations {
		if tol.TolerationSeconds != nil {
			t.Errorf("%s is tolerated for a time only", tol.Key)
		}
		got = append(got, strings.TrimPrefix(tol.Key, "node.kubernetes.io/")+":"+string(tol.Effect))
	}
	if want := "not-ready:NoExecute unreachable:NoExecute disk-pressure:NoSchedule memory-pressure:NoSchedule pid-pressure:NoSchedule " +
		"unschedulable:NoSchedule network-unavailable:NoSchedule"; strings.Join(got, " ") != want {
		t.Errorf("tolerations %q", got)
	}
	if len(ds.Spec.Template.Labels) != 1 || len(ds.Spec.Template.Spec.Tolerations) != 1 {
		t.Error("the template has been changed")
	}
}

// Pods without a controller that match are adopted and not doubled; one whose labels no longer match is released and replaced.
func TestAdoptsAndReleases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		orphan := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "found", Labels: map[string]string{"app": "agent"}},
			Spec: corev1.PodSpec{NodeName: "a", Containers: []corev1.Container{{Name: "c", Image: "v1"}}}}
		ds := daemons("v1")
		ds.Spec.UpdateStrategy = appsv1.DaemonSetUpdateStrategy{Type: appsv1.OnDeleteDaemonSetStrategyType}
		w := newWorld(t, node1("a"), node1("b"), orphan, ds)
		if got := w.c.Stored(kube.Pod, ""); len(got) != 2 {
			t.Fatalf("%d pods, want the orphan and one more", len(got))
		}
		p, _ := control.Get[*corev1.Pod](w.c, kube.Pod, "default", "found")
		if !metav1.IsControlledBy(p, w.set()) {
			t.Fatal("not adopted")
		}
		p = p.DeepCopy()
		p.Labels["app"] = "debug"
		if _, err := w.c.Update(t.Context(), p, ""); err != nil {
			t.Fatal(err)
		}
		w.settle()
		p, _ = control.Get[*corev1.Pod](w.c, kube.Pod, "default", "found")
		if len(p.OwnerReferences) != 0 || len(w.c.Stored(kube.Pod, "")) != 3 {
			t.Errorf("owners %v, %d pods", p.OwnerReferences, len(w.c.Stored(kube.Pod, "")))
		}
	})
}

// An idle day costs no write.
func TestIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, node1("a"), node1("b"), daemons("v1"))
		w.untilStill()
		w.c.Writes()
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		if got := w.c.Writes(); len(got) > 0 {
			t.Errorf("writes: %q", got)
		}
	})
}

// On a cache that lags, no node gets two pods.
func TestNeverTwoOnANode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, daemons("v1"))
		w.c.Lag(true)
		for i := range 20 {
			w.c.Put(node1(fmt.Sprintf("n%02d", i)))
			w.c.Step(1 + i%3)
			time.Sleep(time.Millisecond)
		}
		w.c.Lag(false)
		w.settle()
		on := map[string]int{}
		for _, o := range w.c.Stored(kube.Pod, "") {
			on[target(o.(*corev1.Pod))]++
		}
		if len(on) != 20 {
			t.Errorf("pods on %d nodes, want 20", len(on))
		}
		for n, pods := range on {
			if pods != 1 {
				t.Errorf("%d pods on %s", pods, n)
			}
		}
	})
}

// An empty selector would adopt every pod of the namespace: nothing is done but a warning.
func TestSelectingAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ds := daemons("v1")
		ds.Spec.Selector = &metav1.LabelSelector{}
		w := newWorld(t, node1("a"), ds)
		if got := w.events.Take(); len(w.c.Stored(kube.Pod, "")) != 0 || len(got) == 0 || !strings.HasPrefix(got[0], "Warning SelectingAll") {
			t.Errorf("events %q", got)
		}
	})
}
