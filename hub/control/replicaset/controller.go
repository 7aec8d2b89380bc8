// Package replicaset keeps the wanted number of pods for each ReplicaSet: podset finds, creates and deletes them; this package
// decides how many, and the status. ReplicationControllers, which differ in their form only, are kept by the same rules (Kind).
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

// DeferredAnnotation on a ReplicaSet, set by the Deployment controller, is how many of its replicas are those on dark nodes, where
// they stay until the node is back. When pods have to go, these go last.
const DeferredAnnotation = "petrel.dev/deferred-replicas"

// Config is what the controller needs.
type Config struct {
	Client control.Client
	Events control.Events // as replicaset-controller
	Log    *slog.Logger
}

// Kind is a kind of owners that keep a number of equal pods.
type Kind[O kube.Object] struct {
	GVK  kube.GVK
	Loop string // the name of its loop
	// View returns an owner as a ReplicaSet. It may share memory with the owner, which is shared itself: read-only.
	View func(owner O) *appsv1.ReplicaSet
	// WithStatus returns a copy of the owner with that status.
	WithStatus func(owner O, s appsv1.ReplicaSetStatus) O
	// NoTerminating says that the kind's status does not count the pods that are ending.
	NoTerminating bool
}

// Controller reconciles owners of one kind. Its fields are set by New and do not change; pods has its own locks.
type Controller[O kube.Object] struct {
	client control.Client
	kind   Kind[O]
	pods   *podset.Pods[O]
	loop   *control.Loop
}

// New returns a controller of ReplicaSets; Run starts it.
func New(cfg Config) *Controller[*appsv1.ReplicaSet] {
	return NewOf(cfg, Kind[*appsv1.ReplicaSet]{
		GVK: kube.ReplicaSet, Loop: "replicaset",
		View: func(rs *appsv1.ReplicaSet) *appsv1.ReplicaSet { return rs },
		WithStatus: func(rs *appsv1.ReplicaSet, s appsv1.ReplicaSetStatus) *appsv1.ReplicaSet {
			up := rs.DeepCopy()
			up.Status = s
			return up
		},
	})
}

// NewOf returns a controller of another kind of owners.
func NewOf[O kube.Object](cfg Config, kind Kind[O]) *Controller[O] {
	c := &Controller[O]{client: cfg.Client, kind: kind, pods: podset.New(podset.Config[O]{
		Client: cfg.Client, Events: cfg.Events, Kind: kind.GVK,
		Selector: func(owner O) *metav1.LabelSelector { return kind.View(owner).Spec.Selector },
	})}
	c.loop = &control.Loop{
		Name: kind.Loop, Client: cfg.Client, Log: cfg.Log, Workers: 4,
		Reconcile: c.reconcile,
		Sources: []control.Source{
			{GVK: kind.GVK, Keys: c.ownKeys},
			{GVK: kube.Pod, Keys: c.pods.Keys},
		},
	}
	return c
}

// ownKeys are those of a changed owner. Counts that another client has written into the status are put right; a condition that changes is
// the controller's own report of a failure, and no reason to try again at once.
func (c *Controller[O]) ownKeys(ch control.Change) []control.Key {
	if keys := control.OwnKeyUnlessStatus(ch); keys != nil {
		return keys
	}
	before, now := c.kind.View(ch.Old.(O)).Status, c.kind.View(ch.New.(O)).Status
	if !equality.Semantic.DeepEqual(before.Conditions, now.Conditions) {
		return nil
	}
	return []control.Key{control.KeyOf(ch.New)}
}

// Run reconciles until ctx ends.
func (c *Controller[O]) Run(ctx context.Context) error { return c.loop.Run(ctx) }

func (c *Controller[O]) reconcile(ctx context.Context, key control.Key) (time.Duration, error) {
	owner, ok := control.Get[O](c.client, c.kind.GVK, key.Namespace, key.Name)
	if !ok {
		c.pods.Forget(key)
		return 0, nil
	}
	now, rs := time.Now(), c.kind.View(owner)
	if wait := c.pods.Gather(owner, now); wait > 0 {
		return wait, nil
	}
	mine, err := c.pods.Claim(ctx, owner)
	if err != nil {
		return 0, err
	}
	var failure error
	if rs.DeletionTimestamp == nil && !control.NamespaceEnding(c.client, rs.Namespace) {
		var changed bool
		if changed, failure = c.scale(ctx, owner, rs, mine.Active, now); changed && failure == nil {
			return 0, nil // each of those pods queues the key again; one status counts them all
		}
	}
	s, wait := status(rs, mine, failure, now)
	if c.kind.NoTerminating {
		s.TerminatingReplicas = nil
	}
	if !equality.Semantic.DeepEqual(s, rs.Status) {
		if _, err := c.client.Update(ctx, c.kind.WithStatus(owner, s), "status"); control.IgnoreNotFound(err) != nil {
			return 0, control.JoinErrors(failure, err)
		}
	}
	if again := c.pods.RefusedFor(owner, now); again > 0 && failure != nil {
		if wait > 0 {
			again = min(again, wait)
		}
		return again, nil // the condition and the Event report it
	}
	return wait, failure
}

// scale creates or deletes pods, and reports whether it had to. Its error is what the ReplicaFailure condition shows.
func (c *Controller[O]) scale(ctx context.Context, owner O, rs *appsv1.ReplicaSet, active []*corev1.Pod, now time.Time) (changed bool, err error) {
	switch n := diff(rs, len(active)); {
	case n > 0:
		return true, c.pods.Create(ctx, owner, n, now, func(int) *corev1.Pod { return podset.FromTemplate(owner, c.kind.GVK, &rs.Spec.Template) })
	case n < 0:
		return true, c.pods.Delete(ctx, owner, podset.Victims(c.candidates(rs, active), -n, now))
	}
	return false, nil
}

// candidates returns the active pods with what decides which go first: pods of the same Deployment on one node count as
// colocated, and of those on dark nodes as many as the Deployment has deferred are kept.
func (c *Controller[O]) candidates(rs *appsv1.ReplicaSet, active []*corev1.Pod) []podset.Candidate {
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
func (c *Controller[O]) related(rs *appsv1.ReplicaSet) []*corev1.Pod {
	siblings := []kube.Object{rs}
	if ref := metav1.GetControllerOfNoCopy(rs); ref != nil {
		siblings = c.client.Index(c.kind.GVK, control.OwnerIndex, string(ref.UID))
	}
	var out []*corev1.Pod
	for _, s := range siblings {
		out = append(out, control.Index[*corev1.Pod](c.client, kube.Pod, control.OwnerIndex, string(s.GetUID()))...)
	}
	return out
}
