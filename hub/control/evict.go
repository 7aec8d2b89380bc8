package control

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/internal/kube"
)

// Evict deletes a pod, with the reason in its condition DisruptionTarget: who counts failures must see that this is none. It does not ask
// PodDisruptionBudgets. It reports whether it has deleted the pod; one that is gone, or has made room for another of its name, is no
// error, and one that has changed meanwhile is a Conflict.
func Evict(ctx context.Context, w Writer, p *corev1.Pod, reason, message string) (deleted bool, err error) {
	marked := p.DeepCopy()
	marked.Status.Conditions = kube.SetCondition(marked.Status.Conditions, corev1.PodCondition{
		Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, ObservedGeneration: p.Generation, LastTransitionTime: metav1.Now(),
		Reason: reason, Message: message,
	})
	if err := w.Commit(ctx, []Write{{Object: marked, Old: p, Subresource: "status"}}); err != nil {
		return false, IgnoreNotFound(err)
	}
	uid := p.UID
	err = w.Delete(ctx, kube.Pod, p.Namespace, p.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
	if apierrors.IsConflict(err) {
		return false, nil // another pod has the name
	}
	return err == nil, IgnoreNotFound(err)
}
