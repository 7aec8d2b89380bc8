package podverbs

import (
	"context"
	"fmt"
	"net/http"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"petrel.dev/petrel/hub/control/disruption/budget"
	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

// eviction deletes a pod with grace, with the reason in its status, if the pod's PodDisruptionBudget allows that.
type eviction struct{}

// Handle implements resource.Handler. The budget is asked after admission, for the very state of the pod that the deletion is
// conditional on: a pod that becomes healthy meanwhile is looked at again.
func (eviction) Handle(ctx context.Context, q *resource.Request, body runtime.Object, objects resource.Objects) (resource.Answer, error) {
	e, ok := body.(*policyv1.Eviction)
	if !ok {
		return resource.Answer{}, apierrors.NewBadRequest(fmt.Sprintf("not a Eviction object: %T", body))
	}
	if e.Name != "" && e.Name != q.Name {
		return resource.Answer{}, apierrors.NewBadRequest("name in URL does not match name in Eviction object")
	}
	opts, err := evictionOptions(q, e)
	if err != nil {
		return resource.Answer{}, err
	}
	spent := false // once for this request, however often the deletion is tried
	return resource.Answer{}, objects.Delete(ctx, q, e, opts, func(obj, old kube.Object) error {
		pod, ok := obj.(*corev1.Pod)
		was, had := old.(*corev1.Pod)
		if !ok || !had {
			return apierrors.NewBadRequest(fmt.Sprintf("%s cannot be evicted", q.Kind.Plural))
		}
		if !spent && !budget.Bypasses(was) {
			if err := spend(ctx, objects, was, len(opts.DryRun) > 0); err != nil {
				return err
			}
			spent = true
		}
		pod.Status.Conditions = kube.SetCondition(pod.Status.Conditions, corev1.PodCondition{
			Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue,
			Reason: "EvictionByEvictionAPI", Message: "Eviction API: evicting",
			LastTransitionTime: metav1.NewTime(objects.Now()),
		})
		return nil
	})
}

// evictionOptions returns how the pod is deleted.
func evictionOptions(q *resource.Request, e *policyv1.Eviction) (*metav1.DeleteOptions, error) {
	opts := &metav1.DeleteOptions{}
	if e.DeleteOptions != nil {
		opts = e.DeleteOptions.DeepCopy()
	}
	if ignore := opts.IgnoreStoreReadErrorWithClusterBreakingPotential; ignore != nil && *ignore {
		return nil, kube.NewInvalid(policyv1.SchemeGroupVersion.WithKind("Eviction").GroupKind(), q.Name, field.ErrorList{
			field.Invalid(field.NewPath("deleteOptions", "ignoreStoreReadErrorWithClusterBreakingPotential"), true,
				"can not be set for pod eviction, try after removing the option")})
	}
	if q.DryRun {
		opts.DryRun = []string{metav1.DryRunAll}
	}
	return opts, nil
}

// spendTries bounds how often an eviction starts again because another writer of the budget was faster. Of evictions that come at
// once, one succeeds in each round.
const spendTries = 100

// spend takes the pod's eviction from its budget, or refuses it. A pod without a budget may go.
func spend(ctx context.Context, objects resource.Objects, pod *corev1.Pod, dry bool) error {
	name := ""
	for range spendTries {
		b, err := budgetOf(ctx, objects, pod)
		if err != nil || b == nil || budget.Spares(b, pod) {
			return err
		}
		name = b.Name
		next, err := budget.Spend(b, pod.Name, objects.Now())
		if err != nil || dry {
			return err
		}
		err = objects.UpdateStatus(ctx, next)
		if !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
			return err
		}
	}
	return apierrors.NewTimeoutError(fmt.Sprintf("couldn't update PodDisruptionBudget %q due to conflicts", name), 10)
}

// budgetOf returns the one budget that covers the pod, nil for none.
func budgetOf(ctx context.Context, objects resource.Objects, pod *corev1.Pod) (*policyv1.PodDisruptionBudget, error) {
	list, err := objects.List(ctx, kube.PodDisruptionBudget, pod.Namespace)
	if err != nil {
		return nil, err
	}
	budgets := make([]*policyv1.PodDisruptionBudget, len(list))
	for i, o := range list {
		budgets[i] = o.(*policyv1.PodDisruptionBudget)
	}
	switch covering := budget.Covering(budgets, pod); len(covering) {
	case 0:
		return nil, nil
	case 1:
		return covering[0], nil
	}
	return nil, &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusInternalServerError,
		Message: "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
	}}
}
