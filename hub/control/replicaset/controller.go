// Package replicaset keeps the wanted number of pods for each ReplicaSet.
//
// It counts what its cache shows, and acts only when the cache shows all that it did itself before (control.Pending), so
// it never makes a pod too many however far the cache is behind. A pod that is on a dark node counts as there: whether it
// is to be replaced is for the node controller to say, by evicting it.
package replicaset

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"sync/atomic"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
)

var gvk = kube.ReplicaSet

// DeferredAnnotation on a ReplicaSet, set by the Deployment controller: so many of its replicas are meant to be those on
// dark nodes, where they stay until the node is back. When pods have to go, these go last.
const DeferredAnnotation = "petrel.dev/deferred-replicas"

// Config is what the controller needs.
type Config struct {
	Client control.Client
	Events control.Events // as replicaset-controller
	Log    *slog.Logger
}

// Controller reconciles ReplicaSets.
type Controller struct {
	client  control.Client
	events  control.Events
	loop    *control.Loop
	pending *control.Pending
	orphans *control.Orphans
	refused refusals
}

// New returns a controller; Run starts it.
func New(cfg Config) *Controller {
	c := &Controller{client: cfg.Client, events: cfg.Events, pending: control.NewPending(), orphans: control.NewOrphans()}
	c.loop = &control.Loop{
		Name: "replicaset", Client: cfg.Client, Log: cfg.Log, Workers: 4,
		Reconcile: c.reconcile,
		Sources: []control.Source{
			{GVK: kube.ReplicaSet, Keys: control.OwnKeyUnlessStatus},
			{GVK: kube.Pod, Keys: c.podKeys},
		},
	}
	return c
}

// Run reconciles until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

// podKeys: the ReplicaSets that a pod belongs to, has belonged to, or could belong to.
func (c *Controller) podKeys(ch control.Change) []control.Key {
	c.pending.Saw(ch)
	c.orphans.Saw(ch)
	var keys []control.Key
	for _, obj := range []kube.Object{ch.Old, ch.New} {
		if obj == nil {
			continue
		}
		if ref := metav1.GetControllerOfNoCopy(obj); ref != nil {
			if ref.Kind == gvk.Kind {
				keys = append(keys, control.Key{Namespace: obj.GetNamespace(), Name: ref.Name})
			}
			continue
		}
		if obj != ch.New {
			continue
		}
		for _, rs := range control.List[*appsv1.ReplicaSet](c.client, gvk, obj.GetNamespace()) {
			if s, err := metav1.LabelSelectorAsSelector(rs.Spec.Selector); err == nil && !s.Empty() && s.Matches(labels.Set(obj.GetLabels())) {
				keys = append(keys, control.KeyOf(rs))
			}
		}
	}
	return keys
}

func (c *Controller) reconcile(ctx context.Context, key control.Key) (time.Duration, error) {
	rs, ok := control.Get[*appsv1.ReplicaSet](c.client, gvk, key.Namespace, key.Name)
	if !ok {
		c.pending.Forget(key)
		c.refused.forget(key)
		return 0, nil
	}
	if !c.pending.Settled(key, kube.Pod, c.client) {
		return 0, nil // the change that it waits for brings the key up again
	}
	selector, err := metav1.LabelSelectorAsSelector(rs.Spec.Selector)
	if err != nil {
		return 0, fmt.Errorf("replicaset %s: selector: %w", key, err)
	}
	now := time.Now()
	active, terminating, err := c.pods(ctx, rs, selector)
	if err != nil {
		return 0, err
	}
	var failure error
	if rs.DeletionTimestamp == nil && !control.NamespaceEnding(c.client, rs.Namespace) {
		failure = c.scale(ctx, key, rs, active, now)
		if failure == nil && !c.pending.Settled(key, kube.Pod, c.client) {
			return 0, nil // one status for all of them, when the cache shows them
		}
	}
	s, wait := status(rs, active, terminating, failure, now)
	if !equality.Semantic.DeepEqual(s, rs.Status) {
		up := rs.DeepCopy()
		up.Status = s
		if _, err := c.client.Update(ctx, up, "status"); control.IgnoreNotFound(err) != nil {
			return 0, control.JoinErrors(failure, err)
		}
	}
	if again, err := c.refused.standing(key, rs.Generation, now); err != nil && failure != nil {
		if wait > 0 {
			again = min(again, wait)
		}
		return again, nil // the condition and the Event tell of it
	}
	return wait, failure
}

// pods returns the ReplicaSet's active pods, after adoption and release, and how many are on their way out.
func (c *Controller) pods(ctx context.Context, rs *appsv1.ReplicaSet, selector labels.Selector) (active []*corev1.Pod, terminating int, err error) {
	var owned, orphans []kube.Object
	for _, obj := range c.client.Index(kube.Pod, control.OwnerIndex, string(rs.UID)) {
		p := obj.(*corev1.Pod)
		switch {
		case !control.OwnedBy(p, rs) || control.PodFinished(p):
		case p.DeletionTimestamp != nil:
			terminating++
		default:
			owned = append(owned, obj)
		}
	}
	for _, obj := range c.orphans.In(rs.Namespace) {
		if control.PodActive(obj.(*corev1.Pod)) {
			orphans = append(orphans, obj)
		}
	}
	mine, err := control.Claim(ctx, c.client, rs, gvk, selector, owned, orphans)
	for _, obj := range mine {
		active = append(active, obj.(*corev1.Pod))
	}
	return active, terminating, err
}

// scale creates or deletes pods. Its error is what the ReplicaFailure condition tells.
func (c *Controller) scale(ctx context.Context, key control.Key, rs *appsv1.ReplicaSet, active []*corev1.Pod, now time.Time) error {
	switch n := diff(rs, len(active)); {
	case n > 0:
		if _, err := c.refused.standing(key, rs.Generation, now); err != nil {
			return err // pods come and go meanwhile, and each brings the key up
		}
		err := c.create(ctx, key, rs, n)
		c.refused.note(key, rs.Generation, err, now)
		return err
	case n < 0:
		return c.remove(ctx, key, rs, victims(c.candidates(rs, active), -n, now))
	}
	return nil
}

// create makes n pods in batches of 1, 2, 4, ...: when the first fails, for quota say, the others would too, and a
// thousand refused requests help nobody.
func (c *Controller) create(ctx context.Context, key control.Key, rs *appsv1.ReplicaSet, n int) error {
	for batch := 1; n > 0; batch *= 2 {
		size := min(batch, n)
		var refused atomic.Bool // the others of the batch would be too
		if err := control.InParallel(size, func(int) error {
			if refused.Load() {
				return nil
			}
			pod, err := c.client.Create(ctx, newPod(rs))
			if err != nil {
				refused.Store(refuses(err))
				if !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
					c.events.Event(rs, corev1.EventTypeWarning, "FailedCreate", "Error creating: %v", err)
				}
				return err
			}
			c.pending.Created(key, pod)
			c.events.Event(rs, corev1.EventTypeNormal, "SuccessfulCreate", "Created pod: %s", pod.GetName())
			return nil
		}); err != nil {
			if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
				return nil // all of this is about to go
			}
			return err
		}
		n -= size
	}
	return nil
}

func (c *Controller) remove(ctx context.Context, key control.Key, rs *appsv1.ReplicaSet, pods []*corev1.Pod) error {
	return control.InParallel(len(pods), func(i int) error {
		p := pods[i]
		err := c.client.Delete(ctx, kube.Pod, p.Namespace, p.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &p.UID}})
		if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
			return nil // gone already, or another pod of that name by now
		}
		if err != nil {
			c.events.Event(rs, corev1.EventTypeWarning, "FailedDelete", "Error deleting: %v", err)
			return err
		}
		c.pending.Deleted(key, p)
		c.events.Event(rs, corev1.EventTypeNormal, "SuccessfulDelete", "Deleted pod: %s", p.Name)
		return nil
	})
}

// candidates adds to each active pod what its rank needs from beyond the pod: which pods of the same Deployment share
// its node, and whether it is one of the deferred.
func (c *Controller) candidates(rs *appsv1.ReplicaSet, active []*corev1.Pod) []candidate {
	perNode := map[string]int{}
	for _, p := range c.related(rs) {
		if control.PodActive(p) {
			perNode[p.Spec.NodeName]++
		}
	}
	deferred, _ := strconv.Atoi(rs.Annotations[DeferredAnnotation])
	out := make([]candidate, len(active))
	for i, p := range active {
		out[i] = candidate{pod: p, colocated: perNode[p.Spec.NodeName]}
		if deferred > 0 && control.PodDark(c.client, p) {
			out[i].keep = true
			deferred--
		}
	}
	return out
}

// related are the pods of all ReplicaSets of rs's owner, or of rs alone when it has none.
func (c *Controller) related(rs *appsv1.ReplicaSet) []*corev1.Pod {
	siblings := []kube.Object{rs}
	if ref := metav1.GetControllerOfNoCopy(rs); ref != nil {
		siblings = c.client.Index(gvk, control.OwnerIndex, string(ref.UID))
	}
	var out []*corev1.Pod
	for _, s := range siblings {
		out = append(out, control.Index[*corev1.Pod](c.client, kube.Pod, control.OwnerIndex, string(s.GetUID()))...)
	}
	return out
}
