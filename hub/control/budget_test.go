package control_test

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/control/controltest"
	"petrel.dev/petrel/hub/control/disruption"
	"petrel.dev/petrel/hub/control/disruption/budget"
	"petrel.dev/petrel/internal/kube"
)

// TestDarkNodesSpendTheBudget has the node of one of three pods go dark. Nobody can say that its pod serves, so the budget counts it as away:
// no pod on another node may be evicted meanwhile. The dark pod's own eviction takes nothing of the budget while enough others are healthy.
// When the node is back the budget allows one again.
func TestDarkNodesSpendTheBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, log := controltest.New(t), slog.New(slog.DiscardHandler)
		presence := watched(t, c, disruption.New(disruption.Config{Log: log, Client: c, Events: &controltest.Events{}}))
		for i := range 3 {
			name := fmt.Sprint("n", i)
			presence.join(c, name)
			p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: fmt.Sprint("p", i), UID: types.UID(fmt.Sprint("p", i)), Labels: map[string]string{"app": "web"},
				Annotations: map[string]string{kube.AutonomyAnnotation: "forever"}}, Spec: corev1.PodSpec{NodeName: name}}
			p.Status = corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}}
			c.Put(p)
		}
		least := intstr.FromInt32(2)
		c.Put(&policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "b", Generation: 1},
			Spec: policyv1.PodDisruptionBudgetSpec{MinAvailable: &least, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}}})
		counted := func() *policyv1.PodDisruptionBudget {
			time.Sleep(time.Minute)
			synctest.Wait()
			b, _ := control.Get[*policyv1.PodDisruptionBudget](c, kube.PodDisruptionBudget, "ns", "b")
			return b
		}
		pod := func(name string) *corev1.Pod {
			p, _ := control.Get[*corev1.Pod](c, kube.Pod, "ns", name)
			return p
		}
		if s := counted().Status; s.CurrentHealthy != 3 || s.DisruptionsAllowed != 1 {
			t.Fatalf("at first: %+v", s)
		}
		presence.set(false, "n2")
		time.Sleep(kube.DarkGrace)
		b := counted()
		if b.Status.CurrentHealthy != 2 || b.Status.DisruptionsAllowed != 0 {
			t.Errorf("while n2 is dark: %+v", b.Status)
		}
		if budget.Spares(b, pod("p1")) {
			t.Error("the eviction of a pod that serves takes nothing of the budget")
		}
		if _, err := budget.Spend(b, "p1", time.Now()); err == nil || !strings.Contains(err.Error(), "disruption budget") {
			t.Errorf("the eviction of p1 while n2 is dark: %v", err)
		}
		if !budget.Spares(b, pod("p2")) {
			t.Error("the dark pod may not be evicted, although enough others are healthy")
		}
		presence.set(true, "n2")
		if s := counted().Status; s.CurrentHealthy != 3 || s.DisruptionsAllowed != 1 {
			t.Errorf("when n2 is back: %+v", s)
		}
	})
}
