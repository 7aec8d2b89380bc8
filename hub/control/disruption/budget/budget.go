// Package budget is the arithmetic of PodDisruptionBudgets: what a budget's status follows from, and what an eviction takes of it.
// The controller counts, evictions spend, and both write the status with its optimistic lock: of evictions that come at once no
// more succeed than the budget allows.
package budget

import (
	"errors"
	"fmt"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"petrel.dev/petrel/internal/kube"
)

// DeletionTimeout is how long a pod that an eviction has spent the budget for counts as gone, although it is not being deleted
// yet. After it the eviction has failed, and the pod counts again.
const DeletionTimeout = 2 * time.Minute

// maxDisrupted is how many evictions may be spent before the controller has counted them.
const maxDisrupted = 2000

// Covering returns those of the budgets that select the pod. A budget with a selector that cannot be read selects nothing.
func Covering(budgets []*policyv1.PodDisruptionBudget, pod *corev1.Pod) (out []*policyv1.PodDisruptionBudget) {
	for _, b := range budgets {
		if b.Namespace == pod.Namespace && Selector(b).Matches(labels.Set(pod.Labels)) {
			out = append(out, b)
		}
	}
	return out
}

// Selector returns which pods the budget is about.
func Selector(b *policyv1.PodDisruptionBudget) labels.Selector {
	s, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
	if err != nil {
		return labels.Nothing()
	}
	return s
}

// Count is what there is of a budget's pods.
type Count struct {
	Healthy   int32 // ready, and neither being deleted nor evicted
	Desired   int32 // the least that must be healthy
	Expected  int32 // how many there should be
	Disrupted map[string]metav1.Time
}

// Status returns the status of b with a new count.
func Status(b *policyv1.PodDisruptionBudget, c Count, now time.Time) policyv1.PodDisruptionBudgetStatus {
	s := b.Status.DeepCopy()
	s.CurrentHealthy, s.DesiredHealthy, s.ExpectedPods, s.DisruptedPods = c.Healthy, c.Desired, c.Expected, c.Disrupted
	s.ObservedGeneration = b.Generation
	s.DisruptionsAllowed = 0
	if c.Expected > 0 { // a budget without pods must not allow the eviction of the first one before it is counted
		s.DisruptionsAllowed = max(0, c.Healthy-c.Desired)
	}
	setAllowed(s, now)
	return *s
}

// Failed returns the status of b when its pods could not be counted: nothing may be evicted.
func Failed(b *policyv1.PodDisruptionBudget, why error, now time.Time) policyv1.PodDisruptionBudgetStatus {
	s := b.Status.DeepCopy()
	s.DisruptionsAllowed = 0
	setCondition(s, metav1.ConditionFalse, policyv1.SyncFailedReason, why.Error(), now)
	return *s
}

// setAllowed sets the condition that follows from how many disruptions are allowed.
func setAllowed(s *policyv1.PodDisruptionBudgetStatus, now time.Time) {
	if s.DisruptionsAllowed > 0 {
		setCondition(s, metav1.ConditionTrue, policyv1.SufficientPodsReason, "", now)
	} else {
		setCondition(s, metav1.ConditionFalse, policyv1.InsufficientPodsReason, "", now)
	}
}

func setCondition(s *policyv1.PodDisruptionBudgetStatus, status metav1.ConditionStatus, reason, message string, now time.Time) {
	meta.SetStatusCondition(&s.Conditions, metav1.Condition{
		Type: policyv1.DisruptionAllowedCondition, Status: status, Reason: reason, Message: message,
		ObservedGeneration: s.ObservedGeneration, LastTransitionTime: metav1.NewTime(now),
	})
}

// Bypasses reports whether a pod may be evicted whatever its budget: it has ended, has not begun, or is being deleted already.
func Bypasses(pod *corev1.Pod) bool {
	switch pod.Status.Phase {
	case corev1.PodSucceeded, corev1.PodFailed, corev1.PodPending:
		return true
	}
	return pod.DeletionTimestamp != nil
}

// Spares reports whether the eviction of an unhealthy pod takes nothing of the budget: by the budget's policy, or because enough
// others are healthy.
func Spares(b *policyv1.PodDisruptionBudget, pod *corev1.Pod) bool {
	if kube.IsConditionTrue(pod.Status.Conditions, corev1.PodReady) {
		return false
	}
	if p := b.Spec.UnhealthyPodEvictionPolicy; p != nil && *p == policyv1.AlwaysAllow {
		return true
	}
	return b.Status.CurrentHealthy >= b.Status.DesiredHealthy && b.Status.DesiredHealthy > 0
}

// Spend returns a copy of b after the eviction of a pod, or the refusal of that eviction. The caller, who stores the copy, makes
// sure that b was the current one.
func Spend(b *policyv1.PodDisruptionBudget, pod string, now time.Time) (*policyv1.PodDisruptionBudget, error) {
	switch {
	case b.Status.ObservedGeneration < b.Generation:
		return nil, violated(10, "The disruption budget %s is still being processed by the server.", b.Name)
	case b.Status.DisruptionsAllowed < 0:
		return nil, forbidden(b, "pdb disruptions allowed is negative")
	case len(b.Status.DisruptedPods) > maxDisrupted:
		return nil, forbidden(b, "DisruptedPods map too big - too many evictions not confirmed by PDB controller")
	case b.Status.DisruptionsAllowed == 0:
		return nil, violated(0, "%s", whyNone(b))
	}
	next := b.DeepCopy()
	s := &next.Status
	s.DisruptionsAllowed--
	if s.DisruptionsAllowed == 0 {
		setAllowed(s, now)
	}
	s.DisruptedPods = maps.Clone(s.DisruptedPods)
	if s.DisruptedPods == nil {
		s.DisruptedPods = map[string]metav1.Time{}
	}
	s.DisruptedPods[pod] = metav1.NewTime(now)
	return next, nil
}

// whyNone returns why a budget allows no disruption, in upstream's words.
func whyNone(b *policyv1.PodDisruptionBudget) string {
	c := meta.FindStatusCondition(b.Status.Conditions, policyv1.DisruptionAllowedCondition)
	said := c != nil && c.Status == metav1.ConditionFalse && c.Message != ""
	switch {
	case said && c.Reason == policyv1.SyncFailedReason: // what is counted cannot be trusted
		return fmt.Sprintf("The disruption budget %s does not allow evicting pods currently because it failed sync: %s", b.Name, c.Message)
	case b.Status.CurrentHealthy <= b.Status.DesiredHealthy:
		return fmt.Sprintf("The disruption budget %s needs %d healthy pods and has %d currently", b.Name, b.Status.DesiredHealthy, b.Status.CurrentHealthy)
	case said:
		return fmt.Sprintf("The disruption budget %s does not allow evicting pods currently (%s): %s", b.Name, c.Reason, c.Message)
	}
	return fmt.Sprintf("The disruption budget %s does not allow evicting pods currently", b.Name)
}

// violated returns the 429 by which drains know that they have to wait. after is in seconds.
func violated(after int, format string, args ...any) error {
	err := apierrors.NewTooManyRequests("Cannot evict pod as it would violate the pod's disruption budget.", after)
	err.ErrStatus.Details.Causes = append(err.ErrStatus.Details.Causes,
		metav1.StatusCause{Type: policyv1.DisruptionBudgetCause, Message: fmt.Sprintf(format, args...)})
	return err
}

func forbidden(b *policyv1.PodDisruptionBudget, why string) error {
	return apierrors.NewForbidden(policyv1.Resource("poddisruptionbudget"), b.Name, errors.New(why))
}
