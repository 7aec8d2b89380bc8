package job

import (
	"context"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
)

// podToRelease returns the pod's own key when it has the finalizer and no Job will take it away.
func (c *Controller) podToRelease(ch control.Change) []control.Key {
	p, ok := ch.New.(*corev1.Pod)
	if !ok || !tracked(p) || c.held(p) {
		return nil
	}
	return []control.Key{control.KeyOf(p)}
}

// podsOfEnded returns the pods with the finalizer of a Job that is gone or has finished.
func (c *Controller) podsOfEnded(ch control.Change) []control.Key {
	if j, ok := ch.New.(*batchv1.Job); ok && !finished(j) {
		return nil
	}
	var keys []control.Key
	for _, p := range control.Index[*corev1.Pod](c.client, kube.Pod, control.OwnerIndex, string(ch.Object().GetUID())) {
		if tracked(p) && !c.held(p) {
			keys = append(keys, control.KeyOf(p))
		}
	}
	return keys
}

// releasePod takes the finalizer from a pod that nobody counts.
func (c *Controller) releasePod(ctx context.Context, key control.Key) (time.Duration, error) {
	p, ok := control.Get[*corev1.Pod](c.client, kube.Pod, key.Namespace, key.Name)
	if !ok || !tracked(p) || c.held(p) {
		return 0, nil
	}
	_, err := c.client.Update(ctx, withoutFinalizer(p), "")
	return 0, control.IgnoreNotFound(err)
}

// held reports whether the finalizer of a pod is another's to take away: of its Job that has not finished, of the controller that the
// Job names, or of a controller of another kind that uses the same finalizer.
func (c *Controller) held(p *corev1.Pod) bool {
	ref := metav1.GetControllerOfNoCopy(p)
	if ref == nil {
		return false
	}
	if ref.Kind != kube.Job.Kind || ref.APIVersion != batchv1.SchemeGroupVersion.String() {
		return true
	}
	j, ok := control.Get[*batchv1.Job](c.client, kube.Job, p.Namespace, ref.Name)
	return ok && j.UID == ref.UID && (managedElsewhere(j) || !finished(j))
}
