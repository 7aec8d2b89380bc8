// Package daemonset keeps one pod of each DaemonSet on each node that takes it: podset finds, creates and deletes the pods,
// revision keeps the templates that there have been; this package decides on which nodes, and which pods are replaced.
//
//	nodes that take the pod, pods by node ─► decide: too few, too many, failed ─► (when nothing is to do) the rolling update
//
// A pod names its node in its affinity and is bound by the scheduler. Nodes that are dark are deferred: a rolling update neither
// waits for their pods nor replaces them, and goes on there when they are back. See docs/controllers.md.
package daemonset

import (
	"context"
	"log/slog"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/control/podset"
	"petrel.dev/petrel/hub/control/revision"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/sched"
)

// Config is what the controller needs.
type Config struct {
	Client control.Client
	Events control.Events // as daemonset-controller
	Images podset.Images  // nil: images are not fetched ahead
	Log    *slog.Logger
}

// Controller reconciles DaemonSets. Its fields are set by New and do not change; those that hold state have their own locks.
type Controller struct {
	client  control.Client
	events  control.Events
	pods    *podset.Pods[*appsv1.DaemonSet]
	history *revision.History[*appsv1.DaemonSet]
	failed  *podset.Backoff
	images  podset.Images // may be nil
	loop    *control.Loop
}

// New returns a controller; Run starts it.
func New(cfg Config) *Controller {
	selector := func(ds *appsv1.DaemonSet) *metav1.LabelSelector { return ds.Spec.Selector }
	c := &Controller{
		client: cfg.Client, events: cfg.Events, images: cfg.Images, failed: podset.NewBackoff(),
		pods: podset.New(podset.Config[*appsv1.DaemonSet]{Client: cfg.Client, Events: cfg.Events, Kind: kube.DaemonSet, Selector: selector}),
		history: revision.New(revision.Config[*appsv1.DaemonSet]{
			Client: cfg.Client, Kind: kube.DaemonSet, Selector: selector, HashLabel: appsv1.DefaultDaemonSetUniqueLabelKey,
			Template: func(ds *appsv1.DaemonSet) *corev1.PodTemplateSpec { return &ds.Spec.Template },
		}),
	}
	c.loop = &control.Loop{
		Name: "daemonset", Client: cfg.Client, Log: cfg.Log, Workers: 4,
		Reconcile: c.reconcile,
		Sources: []control.Source{
			{GVK: kube.DaemonSet, Keys: control.OwnKeyUnlessStatus},
			{GVK: kube.Pod, Keys: c.pods.Keys},
			{GVK: kube.ControllerRevision, Keys: c.history.Keys},
			{GVK: kube.Node, Keys: c.nodeKeys},
		},
	}
	return c
}

// Run reconciles until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

// nodeKeys returns all DaemonSets when something of a node changes that decides whether their pods belong there.
func (c *Controller) nodeKeys(ch control.Change) []control.Key {
	if ch.Old != nil && ch.New != nil {
		old, now := ch.Old.(*corev1.Node), ch.New.(*corev1.Node)
		if control.NodeDark(old) == control.NodeDark(now) && equality.Semantic.DeepEqual(old.Labels, now.Labels) &&
			equality.Semantic.DeepEqual(old.Spec.Taints, now.Spec.Taints) {
			return nil
		}
	}
	var keys []control.Key
	for _, ds := range c.client.List(kube.DaemonSet, "") {
		keys = append(keys, control.KeyOf(ds))
	}
	return keys
}

func (c *Controller) reconcile(ctx context.Context, key control.Key) (time.Duration, error) {
	ds, ok := control.Get[*appsv1.DaemonSet](c.client, kube.DaemonSet, key.Namespace, key.Name)
	if !ok {
		c.pods.Forget(key)
		c.failed.Forget(key)
		return 0, nil
	}
	// While a DaemonSet is deleted, its revisions may be gone before its pods: nothing could be counted rightly.
	if ds.DeletionTimestamp != nil || control.NamespaceEnding(c.client, ds.Namespace) {
		return 0, nil
	}
	if s := ds.Spec.Selector; s == nil || len(s.MatchLabels)+len(s.MatchExpressions) == 0 {
		c.events.Event(ds, corev1.EventTypeWarning, "SelectingAll", "This daemon set is selecting all pods. A non-empty selector is required.")
		return 0, nil
	}
	if wait := c.pods.Gather(ds, time.Now()); wait > 0 {
		return wait, nil
	}
	mine, err := c.pods.Claim(ctx, ds)
	if err != nil {
		return 0, err
	}
	revisions, err := c.history.Sync(ctx, ds, ds.Status.CollisionCount)
	if err != nil {
		return 0, err
	}
	st := c.observe(ds, mine, revisions, time.Now())
	if st.stage(revisions.All); st.staged != nil {
		if err := c.keepStage(ctx, st, revisions.All); err != nil {
			return 0, err
		}
	}
	return c.apply(ctx, st, mine, revisions, decide(st))
}

// observe puts together what decide depends on.
func (c *Controller) observe(ds *appsv1.DaemonSet, mine podset.Claimed, r revision.Revisions, now time.Time) *state {
	st := &state{ds: ds, now: now, hash: r.Current.Labels[appsv1.DefaultDaemonSetUniqueLabelKey], same: map[string]bool{}}
	for _, cr := range r.Same {
		if h := cr.Labels[appsv1.DefaultDaemonSetUniqueLabelKey]; h != "" {
			st.same[h] = true
		}
	}
	like := &corev1.Pod{Spec: *ds.Spec.Template.Spec.DeepCopy()}
	addTolerations(&like.Spec)
	rules := sched.RulesOf(like)
	for _, n := range control.List[*corev1.Node](c.client, kube.Node, "") {
		bind, stay := rules.Admit(n)
		st.nodes = append(st.nodes, node{name: n.Name, bind: bind, stay: stay, dark: control.NodeDark(n), labels: n.Labels})
	}
	st.place(mine)
	key := control.KeyOf(ds)
	st.replaceable = podset.Replaceable(c.images, c.client, ds, st.hash, &ds.Spec.Template.Spec, func() { c.loop.Enqueue(key) })
	st.held = func(node string) time.Duration { return c.failed.Wait(key, node, now) }
	return st
}

// apply makes and deletes pods or, when there is nothing to do, writes the status and removes old revisions. The change of each
// pod queues the key again.
func (c *Controller) apply(ctx context.Context, st *state, mine podset.Claimed, r revision.Revisions, a actions) (time.Duration, error) {
	ds := st.ds
	for _, n := range a.failed {
		c.failed.Next(control.KeyOf(ds), n, st.now)
	}
	for _, e := range a.events {
		c.events.Event(ds, e.kind, e.reason, "%s", e.text)
	}
	var failure error
	if create := a.create[:min(len(a.create), podset.MaxBurst)]; len(create) > 0 {
		failure = c.pods.Create(ctx, ds, len(create), st.now, func(i int) *corev1.Pod { return newPod(ds, st.hash, create[i]) })
	}
	if remove := a.remove[:min(len(a.remove), podset.MaxBurst)]; len(remove) > 0 {
		failure = control.JoinErrors(failure, c.pods.Delete(ctx, ds, remove))
	}
	s := st.status()
	s.CollisionCount = r.Collisions
	changed := len(a.create)+len(a.remove) > 0
	if changed && failure == nil && ds.Status.ObservedGeneration == ds.Generation && equality.Semantic.DeepEqual(r.Collisions, ds.Status.CollisionCount) {
		return st.after, nil // each of those pods queues the key again; one status counts them all
	}
	if !equality.Semantic.DeepEqual(s, ds.Status) {
		up := ds.DeepCopy()
		up.Status = s
		if _, err := c.client.Update(ctx, up, "status"); control.IgnoreNotFound(err) != nil {
			return 0, control.JoinErrors(failure, err)
		}
	}
	if wait := c.pods.RefusedFor(ds, st.now); wait > 0 && failure != nil {
		st.again(wait)
		return st.after, nil // the Event reports it
	}
	if failure != nil || changed {
		return st.after, failure
	}
	return st.after, c.truncate(ctx, ds, mine, r)
}

// truncate removes old revisions beyond the limit, but none that a pod is of. As on Kubernetes, those count against the limit too.
func (c *Controller) truncate(ctx context.Context, ds *appsv1.DaemonSet, mine podset.Claimed, r revision.Revisions) error {
	if ds.Spec.RevisionHistoryLimit == nil {
		return nil
	}
	used := map[string]bool{}
	for _, pods := range [][]*corev1.Pod{mine.Active, mine.Ending, mine.Ended} {
		for _, p := range pods {
			used[p.Labels[appsv1.DefaultDaemonSetUniqueLabelKey]] = true
		}
	}
	live := func(cr *appsv1.ControllerRevision) bool {
		h := cr.Labels[appsv1.DefaultDaemonSetUniqueLabelKey]
		return h != "" && used[h]
	}
	limit := *ds.Spec.RevisionHistoryLimit
	for _, cr := range r.All {
		if cr.UID != r.Current.UID && live(cr) && limit > 0 {
			limit--
		}
	}
	return c.history.Truncate(ctx, r, &limit, live)
}
