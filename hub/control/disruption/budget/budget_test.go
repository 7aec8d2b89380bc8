package budget_test

import (
	"errors"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/control/disruption/budget"
)

var now = time.Unix(1_800_000_000, 0)

func pdb(s policyv1.PodDisruptionBudgetStatus) *policyv1.PodDisruptionBudget {
	return &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "b", Generation: 2},
		Spec:       policyv1.PodDisruptionBudgetSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}},
		Status:     s,
	}
}

// A count allows what is healthy beyond what must be, and nothing while no pods are expected.
func TestStatus(t *testing.T) {
	for _, test := range []struct{ healthy, desired, expected, allowed int32 }{
		{3, 2, 3, 1}, {2, 2, 3, 0}, {1, 2, 3, 0}, {3, 0, 3, 3}, {1, 0, 0, 0},
	} {
		s := budget.Status(pdb(policyv1.PodDisruptionBudgetStatus{}), budget.Count{Healthy: test.healthy, Desired: test.desired, Expected: test.expected}, now)
		c := meta.FindStatusCondition(s.Conditions, policyv1.DisruptionAllowedCondition)
		want := metav1.ConditionFalse
		reason := policyv1.InsufficientPodsReason
		if test.allowed > 0 {
			want, reason = metav1.ConditionTrue, policyv1.SufficientPodsReason
		}
		if s.DisruptionsAllowed != test.allowed || s.ObservedGeneration != 2 || c == nil || c.Status != want || c.Reason != reason || c.ObservedGeneration != 2 {
			t.Errorf("%+v: %+v", test, s)
		}
	}
	s := budget.Failed(pdb(policyv1.PodDisruptionBudgetStatus{DisruptionsAllowed: 2, ObservedGeneration: 1}), errors.New("no idea"), now)
	if c := s.Conditions[0]; s.DisruptionsAllowed != 0 || c.Status != metav1.ConditionFalse || c.Reason != policyv1.SyncFailedReason || c.Message != "no idea" {
		t.Errorf("failed: %+v", s)
	}
}

func TestSpend(t *testing.T) {
	failed := policyv1.PodDisruptionBudgetStatus{ObservedGeneration: 2, CurrentHealthy: 3, DesiredHealthy: 2}
	failed.Conditions = budget.Failed(pdb(failed), errors.New("no idea"), now).Conditions
	for name, test := range map[string]struct {
		status policyv1.PodDisruptionBudgetStatus
		after  int32
		cause  string
	}{
		"not counted": {policyv1.PodDisruptionBudgetStatus{ObservedGeneration: 1, DisruptionsAllowed: 1}, 10, "The disruption budget b is still being processed by the server."},
		"too few":     {policyv1.PodDisruptionBudgetStatus{ObservedGeneration: 2, CurrentHealthy: 2, DesiredHealthy: 2}, 0, "The disruption budget b needs 2 healthy pods and has 2 currently"},
		"failed":      {failed, 0, "The disruption budget b does not allow evicting pods currently because it failed sync: no idea"},
		"none":        {policyv1.PodDisruptionBudgetStatus{ObservedGeneration: 2, CurrentHealthy: 1}, 0, "The disruption budget b does not allow evicting pods currently"},
	} {
		_, err := budget.Spend(pdb(test.status), "p", now)
		var status apierrors.APIStatus
		if !errors.As(err, &status) || !apierrors.IsTooManyRequests(err) || err.Error() != "Cannot evict pod as it would violate the pod's disruption budget." {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if d := status.Status().Details; d.RetryAfterSeconds != test.after || len(d.Causes) != 1 || d.Causes[0].Type != policyv1.DisruptionBudgetCause || d.Causes[0].Message != test.cause {
			t.Errorf("%s: %+v", name, d)
		}
	}
	b := pdb(policyv1.PodDisruptionBudgetStatus{ObservedGeneration: 2, CurrentHealthy: 3, DesiredHealthy: 2, DisruptionsAllowed: 1})
	next, err := budget.Spend(b, "p", now)
	if err != nil || next.Status.DisruptionsAllowed != 0 || !next.Status.DisruptedPods["p"].Time.Equal(now) ||
		!meta.IsStatusConditionFalse(next.Status.Conditions, policyv1.DisruptionAllowedCondition) {
		t.Errorf("%v, %+v", err, next)
	}
	if b.Status.DisruptionsAllowed != 1 || b.Status.DisruptedPods != nil {
		t.Errorf("the shared budget has changed: %+v", b.Status)
	}
}

// An unhealthy pod takes nothing of the budget when enough others are healthy, or when the policy lets it go in any case.
func TestSpares(t *testing.T) {
	always, healthy := policyv1.AlwaysAllow, policyv1.IfHealthyBudget
	ready := &corev1.Pod{Status: corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}}}
	for _, test := range []struct {
		pod        *corev1.Pod
		policy     *policyv1.UnhealthyPodEvictionPolicyType
		have, need int32
		spares     bool
	}{
		{ready, &always, 3, 1, false}, {&corev1.Pod{}, nil, 2, 2, true}, {&corev1.Pod{}, &healthy, 1, 2, false},
		{&corev1.Pod{}, &healthy, 0, 0, false}, {&corev1.Pod{}, &always, 0, 2, true},
	} {
		b := pdb(policyv1.PodDisruptionBudgetStatus{CurrentHealthy: test.have, DesiredHealthy: test.need})
		b.Spec.UnhealthyPodEvictionPolicy = test.policy
		if got := budget.Spares(b, test.pod); got != test.spares {
			t.Errorf("%+v: %v", test, got)
		}
	}
	for phase, want := range map[corev1.PodPhase]bool{corev1.PodPending: true, corev1.PodRunning: false, corev1.PodSucceeded: true, corev1.PodFailed: true} {
		if got := budget.Bypasses(&corev1.Pod{Status: corev1.PodStatus{Phase: phase}}); got != want {
			t.Errorf("%s bypasses: %v", phase, got)
		}
	}
}

func TestCovering(t *testing.T) {
	all, none, broken, elsewhere := pdb(policyv1.PodDisruptionBudgetStatus{}), pdb(policyv1.PodDisruptionBudgetStatus{}), pdb(policyv1.PodDisruptionBudgetStatus{}), pdb(policyv1.PodDisruptionBudgetStatus{})
	all.Spec.Selector, none.Spec.Selector, elsewhere.Namespace = &metav1.LabelSelector{}, nil, "other"
	broken.Spec.Selector = &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "app", Operator: "Near"}}}
	web := pdb(policyv1.PodDisruptionBudgetStatus{})
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Labels: map[string]string{"app": "web"}}}
	got := budget.Covering([]*policyv1.PodDisruptionBudget{all, none, broken, elsewhere, web}, p)
	if len(got) != 2 || got[0] != all || got[1] != web {
		t.Errorf("%d budgets cover the pod", len(got))
	}
}
