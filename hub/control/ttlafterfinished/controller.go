// Package ttlafterfinished deletes Jobs with a ttlSecondsAfterFinished that long after they have finished, their pods first.
package ttlafterfinished

import (
	"context"
	"log/slog"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
)

// Controller deletes Jobs. Its fields do not change after New.
type Controller struct {
	client control.Client
	loop   *control.Loop
}

// New returns a controller; Run starts it.
func New(client control.Client, log *slog.Logger) *Controller {
	c := &Controller{client: client}
	c.loop = &control.Loop{
		Name: "ttlafterfinished", Client: client, Log: log, Reconcile: c.reconcile,
		Sources: []control.Source{{GVK: kube.Job, Keys: expiring}},
	}
	return c
}

// Run deletes until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

// expiring returns the Job's key when there is, or was, a time at which it is to be deleted.
func expiring(ch control.Change) []control.Key {
	for _, obj := range []kube.Object{ch.Old, ch.New} {
		if j, ok := obj.(*batchv1.Job); ok {
			if _, ok := expiry(j); ok {
				return []control.Key{control.KeyOf(j)}
			}
		}
	}
	return nil
}

func (c *Controller) reconcile(ctx context.Context, key control.Key) (time.Duration, error) {
	j, ok := control.Get[*batchv1.Job](c.client, kube.Job, key.Namespace, key.Name)
	if !ok {
		return 0, nil
	}
	at, ok := expiry(j)
	if !ok {
		return 0, nil
	}
	if wait := time.Until(at); wait > 0 {
		return wait, nil
	}
	// Of this very revision: with another, it may have another TTL.
	foreground := metav1.DeletePropagationForeground
	return 0, control.IgnoreNotFound(c.client.Delete(ctx, kube.Job, j.Namespace, j.Name, metav1.DeleteOptions{
		PropagationPolicy: &foreground, Preconditions: &metav1.Preconditions{UID: &j.UID, ResourceVersion: &j.ResourceVersion},
	}))
}

// expiry returns when a Job is to be deleted; ok is false for one that has not finished, stays, or is being deleted.
func expiry(j *batchv1.Job) (at time.Time, ok bool) {
	if j.Spec.TTLSecondsAfterFinished == nil || j.DeletionTimestamp != nil {
		return time.Time{}, false
	}
	for _, c := range j.Status.Conditions {
		if (c.Type == batchv1.JobComplete || c.Type == batchv1.JobFailed) && c.Status == corev1.ConditionTrue && !c.LastTransitionTime.IsZero() {
			return c.LastTransitionTime.Add(kube.Seconds(*j.Spec.TTLSecondsAfterFinished)), true
		}
	}
	return time.Time{}, false
}
