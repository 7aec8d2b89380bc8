package schedule_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
)

// prior is a pod with a priority.
func prior(name, cpu string, priority int32) *corev1.Pod {
	p := pod(name, cpu)
	p.Spec.Priority = &priority
	grace := int64(30)
	p.Spec.TerminationGracePeriodSeconds = &grace
	return p
}

// running is a pod that runs on a node already.
func running(name, cpu string, priority int32, node string) *corev1.Pod {
	p := prior(name, cpu, priority)
	p.Spec.NodeName = node
	p.Status.Phase = corev1.PodRunning
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	return p
}

// get returns a pod as it is stored.
func (w *world) get(name string) *corev1.Pod {
	w.Helper()
	synctest.Wait()
	p, ok := control.Get[*corev1.Pod](w.Client, kube.Pod, "default", name)
	if !ok {
		w.Fatalf("there is no pod %s", name)
	}
	return p
}

func (w *world) wantNominated(name, node string) {
	w.Helper()
	if got := w.get(name).Status.NominatedNodeName; got != node {
		w.Errorf("pod %s is nominated to %q, want %q", name, got, node)
	}
}

// leaving reports whether the pod is being deleted for one that preempts it; it must not be for another reason.
func (w *world) leaving(name string) bool {
	w.Helper()
	p := w.get(name)
	c := control.PodCondition(p, corev1.DisruptionTarget)
	marked := c != nil && c.Status == corev1.ConditionTrue && c.Reason == corev1.PodReasonPreemptionByScheduler &&
		c.Message == "default-scheduler: preempting to accommodate a higher priority pod"
	if gone := p.DeletionTimestamp != nil; gone != marked {
		w.Errorf("pod %s: deleted: %t, condition %+v", name, gone, c)
	}
	return p.DeletionTimestamp != nil
}

// A pod of high priority has one of lower priority evicted, waits until that has ended, and gets its room before others.
func TestPreempts(t *testing.T) {
	play(t, func(w *world) {
		w.Put(node("a", "1"))
		w.Put(running("low", "1", 1, "a"))
		w.start()
		w.Put(prior("high", "1", 100))
		w.want("high", "Unschedulable: 0/1 nodes are available: 1 Insufficient cpu.")
		w.wantNominated("high", "a")
		if !w.leaving("low") || *w.get("low").DeletionGracePeriodSeconds != 30 {
			t.Error("low is not leaving with its grace period")
		}
		w.wantEvents("Warning FailedScheduling Pod/high: 0/1 nodes are available: 1 Insufficient cpu.",
			"Normal Preempted Pod/low: Preempted by pod uid-high on node a")

		w.Put(prior("equal", "1", 100))
		time.Sleep(maxWait)
		w.Remove(kube.Pod, "default", "low")
		w.want("high", "a")
		w.wantNominated("high", "")
		w.want("equal", "Unschedulable: 0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.")
	})
}

// What is promised is promised after a restart too; one who is more important may take it, and then the promise ends.
func TestNominationOutlivesARestart(t *testing.T) {
	play(t, func(w *world) {
		w.Put(node("a", "1"))
		first := prior("first", "1", 100)
		first.Status.NominatedNodeName = "a"
		first.Spec.NodeSelector = map[string]string{"disk": "ssd"}
		w.Put(first)
		w.Put(prior("other", "1", 50))
		w.start()
		w.want("other", "a") // first does not fit there, and nobody else would help
		w.wantNominated("first", "")

		w.Remove(kube.Pod, "default", "other")
		w.Put(running("low", "1", 1, "a"))
		w.Put(prior("mid", "1", 50))
		w.wantNominated("mid", "a")
		w.Put(prior("top", "1", 1000))
		w.wantNominated("top", "a")
		w.wantNominated("mid", "")
		time.Sleep(maxWait)
		w.Remove(kube.Pod, "default", "low")
		w.want("top", "a")
		w.want("mid", "Unschedulable: 0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 Insufficient cpu.") // top is promised the victim's room
	})
}

// A promise ends with its node; room elsewhere is taken at once.
func TestNominationEndsWithItsNode(t *testing.T) {
	play(t, func(w *world) {
		w.Put(node("a", "1"))
		w.Put(running("low", "1", 1, "a"))
		w.start()
		w.Put(prior("high", "1", 100))
		w.wantNominated("high", "a")
		w.Remove(kube.Node, "", "a")
		time.Sleep(maxWait)
		w.wantNominated("high", "")
		w.Put(node("b", "1"))
		w.want("high", "b")
	})
}

// Budgets decide where, and those who never preempt do not.
func TestPreemptionAsksBudgets(t *testing.T) {
	play(t, func(w *world) {
		w.Put(node("a", "1"))
		w.Put(node("b", "1"))
		w.Put(&policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "quiet", Generation: 1},
			Spec:   policyv1.PodDisruptionBudgetSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "quiet"}}},
			Status: policyv1.PodDisruptionBudgetStatus{ObservedGeneration: 1, CurrentHealthy: 1, DesiredHealthy: 1}})
		quiet := running("quiet", "1", 1, "a")
		quiet.Labels = map[string]string{"app": "quiet"}
		w.Put(quiet)
		w.Put(running("loud", "1", 2, "b"))
		w.start()
		never, policy := prior("never", "1", 100), corev1.PreemptNever
		never.Spec.PreemptionPolicy = &policy
		w.Put(never)
		w.want("never", "Unschedulable: 0/2 nodes are available: 2 Insufficient cpu. preemption: not eligible due to preemptionPolicy=Never.")
		w.Put(prior("high", "1", 100))
		w.wantNominated("high", "b")
		if w.leaving("quiet") || !w.leaving("loud") {
			t.Error("the wrong one goes")
		}
		w.Put(prior("second", "1", 100))
		w.wantNominated("second", "a")
		if !w.leaving("quiet") {
			t.Error("a budget is a preference, not a bound")
		}
	})
}

// Several that preempt in one round do not count on one victim.
func TestEachPreemptionHasItsVictims(t *testing.T) {
	play(t, func(w *world) {
		w.Put(node("a", "4"))
		for i := range 4 {
			w.Put(running(fmt.Sprint("low-", i), "1", 1, "a"))
		}
		for i := range 3 {
			w.Put(prior(fmt.Sprint("high-", i), "1", 100))
		}
		w.start()
		gone := 0
		for i := range 4 {
			if w.leaving(fmt.Sprint("low-", i)) {
				gone++
			}
		}
		if gone != 3 {
			t.Errorf("%d pods go for 3", gone)
		}
		time.Sleep(maxWait)
		for i := range 4 {
			if w.leaving(fmt.Sprint("low-", i)) {
				w.Remove(kube.Pod, "default", fmt.Sprint("low-", i))
			}
		}
		for i := range 3 {
			w.want(fmt.Sprint("high-", i), "a")
		}
	})
}

// An eviction that fails is tried again, and so is the write of a victim's condition when another writer was faster.
func TestEvictionIsTriedAgain(t *testing.T) {
	play(t, func(w *world) {
		w.Put(node("a", "1"))
		w.Put(running("low", "1", 1, "a"))
		deletions, conflicts := 0, 0
		w.Refuse = func(verb string, obj kube.Object, sub string) error {
			switch {
			case verb == "delete" && deletions < 2:
				deletions++
				return apierrors.NewServiceUnavailable("full")
			case sub == "status" && obj.GetName() == "low" && conflicts < 2:
				conflicts++
				return apierrors.NewConflict(schema.GroupResource{Resource: "pods"}, "low", fmt.Errorf("it has changed"))
			}
			return nil
		}
		w.start()
		w.Put(prior("high", "1", 100))
		time.Sleep(maxWait)
		if !w.leaving("low") || deletions != 2 || conflicts != 2 {
			t.Errorf("low is there, after %d refused deletions and %d conflicts", deletions, conflicts)
		}
	})
}

// On a node that is out of reach nothing can be ended.
func TestNoPreemptionOnDarkNodes(t *testing.T) {
	play(t, func(w *world) {
		n := node("a", "1")
		n.Spec.Taints = []corev1.Taint{{Key: kube.TaintUnreachable, Effect: corev1.TaintEffectNoSchedule}}
		w.Put(n)
		w.Put(running("low", "1", 1, "a"))
		w.start()
		high := prior("high", "1", 100)
		high.Spec.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}}
		w.Put(high)
		w.want("high", "Unschedulable: 0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 node(s) were unreachable, where no victim can end.")
		if w.leaving("low") {
			t.Error("low goes")
		}
		time.Sleep(time.Minute)
		bright := n.DeepCopy()
		bright.Spec.Taints = nil
		w.Put(bright)
		time.Sleep(maxWait)
		w.wantNominated("high", "a")
		if !w.leaving("low") {
			t.Error("low stays")
		}
		w.Put(n) // dark again, before low has ended
		time.Sleep(maxWait)
		w.wantNominated("high", "")
		w.Put(node("b", "1"))
		w.want("high", "b")
	})
}
