package podverbs

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

// eviction deletes a pod with grace, with the reason in its status. There are no PodDisruptionBudgets.
type eviction struct{}

// Handle implements resource.Handler.
func (eviction) Handle(ctx context.Context, q *resource.Request, body runtime.Object, objects resource.Objects) (resource.Answer, error) {
	e, ok := body.(*policyv1.Eviction)
	if !ok {
		return resource.Answer{}, apierrors.NewBadRequest(fmt.Sprintf("not a Eviction object: %T", body))
	}
	if e.Name != "" && e.Name != q.Name {
		return resource.Answer{}, apierrors.NewBadRequest("name in URL does not match name in Eviction object")
	}
	opts := &metav1.DeleteOptions{}
	if e.DeleteOptions != nil {
		opts = e.DeleteOptions.DeepCopy()
	}
	if q.DryRun {
		opts.DryRun = []string{metav1.DryRunAll}
	}
	return resource.Answer{}, objects.Delete(ctx, q, e, opts, func(obj kube.Object) {
		pod, ok := obj.(*corev1.Pod)
		if !ok {
			return
		}
		pod.Status.Conditions = kube.SetCondition(pod.Status.Conditions, corev1.PodCondition{
			Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue,
			Reason: "EvictionByEvictionAPI", Message: "Eviction API: evicting",
			LastTransitionTime: metav1.NewTime(objects.Now()),
		})
	})
}
