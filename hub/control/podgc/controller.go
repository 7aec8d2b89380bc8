// Package podgc bounds how many pods that have ended are kept for users to look at. Their owners do not delete them: a ReplicaSet
// replaces a failed pod and leaves it where it is.
package podgc

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
)

// DefaultKeep is how many ended pods are kept. Kubernetes' own default of 12,500 is meant for thousands of machines; these
// here cost a hub about 3 MB.
const DefaultKeep = 500

// reasonEvicted is the reason that a node reports for a pod that it has ended for want of resources.
const reasonEvicted = "Evicted"

// Config is what the controller needs.
type Config struct {
	Client control.Client
	Keep   int // DefaultKeep when 0
	Log    *slog.Logger
}

// Controller deletes ended pods beyond the bound. Its fields do not change after New.
type Controller struct {
	client control.Client
	keep   int // more than 0
	loop   *control.Loop
}

// New returns a controller; Run starts it.
func New(cfg Config) *Controller {
	c := &Controller{client: cfg.Client, keep: cmp.Or(cfg.Keep, DefaultKeep)}
	c.loop = &control.Loop{
		Name: "podgc", Client: cfg.Client, Log: cfg.Log,
		Reconcile: c.reconcile,
		Sources:   []control.Source{{GVK: kube.Pod, Keys: ended}},
	}
	return c
}

// Run collects until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

// ended returns the loop's one key when a change is that of a pod which has ended.
func ended(ch control.Change) []control.Key {
	p, ok := ch.New.(*corev1.Pod)
	if !ok || !control.PodFinished(p) {
		return nil
	}
	if old, ok := ch.Old.(*corev1.Pod); ok && control.PodFinished(old) {
		return nil
	}
	return []control.Key{{Name: "ended"}}
}

func (c *Controller) reconcile(ctx context.Context, _ control.Key) (time.Duration, error) {
	var errs []error
	for _, p := range excess(control.List[*corev1.Pod](c.client, kube.Pod, ""), c.keep) {
		uid := p.UID
		err := c.client.Delete(ctx, kube.Pod, p.Namespace, p.Name, metav1.DeleteOptions{
			GracePeriodSeconds: new(int64), Preconditions: &metav1.Preconditions{UID: &uid},
		})
		if !apierrors.IsConflict(err) { // another pod of that name
			errs = append(errs, control.IgnoreNotFound(err))
		}
	}
	return 0, control.JoinErrors(errs...)
}

// excess returns the ended pods beyond keep, in the order in which to delete them: evicted ones first, then the oldest.
func excess(pods []*corev1.Pod, keep int) []*corev1.Pod {
	pods = slices.DeleteFunc(slices.Clone(pods), func(p *corev1.Pod) bool {
		return !control.PodFinished(p) || p.DeletionTimestamp != nil
	})
	if len(pods) <= keep {
		return nil
	}
	evicted := func(p *corev1.Pod) int {
		if p.Status.Reason == reasonEvicted {
			return 0
		}
		return 1
	}
	slices.SortFunc(pods, func(a, b *corev1.Pod) int {
		return cmp.Or(cmp.Compare(evicted(a), evicted(b)), a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.UID, b.UID))
	})
	return pods[:len(pods)-keep]
}
