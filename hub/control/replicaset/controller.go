// Package replicaset keeps the wanted number of pods for each ReplicaSet: podset finds, creates and deletes them; this package
// decides how many, and the status.
package replicaset

import (
	"context"
	"log/slog"
	"strconv"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/control/podset"
	"petrel.dev/petrel/internal/kube"
)

var gvk = kube.ReplicaSet

// DeferredAnnotation on a ReplicaSet, set by the Deployment controller, is how many of its replicas are those on dark nodes, where
// they stay until the node is back. When pods have to go, these go last.
const DeferredAnnotation = "petrel.dev/deferred-replicas"

// Config is what the controller needs.
type Config struct {
	Client control.Client
	Events control.Events // as replicaset-controller
	Log    *slog.Logger
}

// Controller reconciles ReplicaSets. Its fields are set by New and do not change; pods has its own locks.
type Controller struct {
	client control.Client
	pods   *podset.Pods[*appsv1.ReplicaSet]
	loop   *control.Loop
}

// New returns a controller; Run starts it.
func New(cfg Config) *Controller {
	c := &Controller{client: cfg.Client, pods: podset.New(podset.Config[*appsv1.ReplicaSet]{
		Client: cfg.Client, Events: cfg.Events, Kind: gvk,
		Selector: func(rs *appsv1.ReplicaSet) *metav1.LabelSelector { return rs.Spec.Selector },
	})}
	c.loop = &control.Loop{
		Name: "replicaset", Client: cfg.Client, Log: cfg.Log, Workers: 4,
		Reconcile: c.reconcile,
		Sources: []control.Source{
			{GVK: kube.ReplicaSet, Keys: control.OwnKeyUnlessStatus},
			{GVK: kube.Pod, Keys: c.pods.Keys},
		},
	}
	return c
}

// Run reconciles until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

func (c *Controller) reconcile(ctx context.Context, key control.Key) (time.Duration, error) {
	rs, ok := control.Get[*appsv1.ReplicaSet](c.client, gvk, key.Namespace, key.Name)
	if !ok {
		c.pods.Forget(key)
		return 0, nil
	}
	now := time.Now()
	mine, err := c.pods.Claim(ctx, rs)
	if err != nil {
		return 0, err
	}
	var failure error
	if rs.DeletionTimestamp == nil && !control.NamespaceEnding(c.client, rs.Namespace) {
		var changed bool
		if changed, failure = c.scale(ctx, rs, mine.Active, now); changed && failure == nil {
			return 0, nil // each of those pods queues the key again; one status counts them all
		}
	}
	s, wait := status(rs, mine, failure, now)
	if !equality.Semantic.DeepEqual(s, rs.Status) {
		up := rs.DeepCopy()
		up.Status = s
		if _, err := c.client.Update(ctx, up, "status"); control.IgnoreNotFound(err) != nil {
			return 0, control.JoinErrors(failure, err)
		}
	}
	if again := c.pods.RefusedFor(rs, now); again > 0 && failure != nil {
		if wait > 0 {
			again = min(again, wait)
		}
		return again, nil // the condition and the Event report it
	}
	return wait, failure
}

// scale creates or deletes pods, and reports whether it had to. Its error is what the ReplicaFailure condition shows.
func (c *Controller) scale(ctx context.Context, rs *appsv1.ReplicaSet, active []*corev1.Pod, now time.Time) (changed bool, err error) {
	switch n := diff(rs, len(active)); {
	case n > 0:
		return true, c.pods.Create(ctx, rs, n, now, func(int) *corev1.Pod { return podset.FromTemplate(rs, gvk, &rs.Spec.Template) })
	case n < 0:
		return true, c.pods.Delete(ctx, rs, podset.Victims(c.candidates(rs, active), -n, now))
	}
	return false, nil
}

// candidates returns the active pods with what decides which go first: pods of the same Deployment on one node count as
// colocated, and of those on dark nodes as many as the Deployment has deferred are kept.
func (c *Controller) candidates(rs *appsv1.ReplicaSet, active []*corev1.Pod) []podset.Candidate {
	deferred, _ := strconv.Atoi(rs.Annotations[DeferredAnnotation])
	return podset.Candidates(active, c.related(rs), func(p *corev1.Pod) bool {
		if deferred <= 0 || !control.PodDark(c.client, p) {
			return false
		}
		deferred--
		return true
	})
}

// related returns the pods of all ReplicaSets of rs's owner, or of rs alone when it has none.
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
