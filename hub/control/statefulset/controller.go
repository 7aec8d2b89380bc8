// Package statefulset keeps the pods of each StatefulSet, which have names of their own: NAME-0, NAME-1, ... podset finds, creates
// and deletes them, revision keeps the templates that there have been; this package decides which pod comes, goes or is replaced
// next, and makes the claims of each.
//
//	pods by ordinal ─► decide: absent ones are made, in order ─► those beyond the end go, from the last ─► one is updated
//
// A name is free when its Pod is gone from the API, and not before: no two pods of one name run, wherever the first one is. A pod on
// a dark node keeps its name until the node confirms its end or is deleted. See docs/controllers.md.
package statefulset

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/control/podset"
	"petrel.dev/petrel/hub/control/revision"
	"petrel.dev/petrel/internal/kube"
)

// Config is what the controller needs.
type Config struct {
	Client control.Client
	Events control.Events // as statefulset-controller
	Images podset.Images  // nil: images are not fetched ahead
	Log    *slog.Logger
}

// Controller reconciles StatefulSets. Its fields are set by New and do not change; those that hold state have their own locks.
type Controller struct {
	client  control.Client
	events  control.Events
	pods    *podset.Pods[*appsv1.StatefulSet]
	history *revision.History[*appsv1.StatefulSet]
	failed  *podset.Backoff
	images  podset.Images // may be nil
	loop    *control.Loop
}

// New returns a controller; Run starts it.
func New(cfg Config) *Controller {
	selector := func(s *appsv1.StatefulSet) *metav1.LabelSelector { return s.Spec.Selector }
	c := &Controller{
		client: cfg.Client, events: cfg.Events, images: cfg.Images, failed: podset.NewBackoff(),
		pods: podset.New(podset.Config[*appsv1.StatefulSet]{
			Client: cfg.Client, Events: cfg.Events, Kind: kube.StatefulSet, Selector: selector, Report: report,
			Named: func(s *appsv1.StatefulSet, p *corev1.Pod) bool { _, ok := ordinal(s, p.Name); return ok },
		}),
		history: revision.New(revision.Config[*appsv1.StatefulSet]{
			Client: cfg.Client, Kind: kube.StatefulSet, Selector: selector, HashLabel: "controller.kubernetes.io/hash",
			Template: func(s *appsv1.StatefulSet) *corev1.PodTemplateSpec { return &s.Spec.Template },
		}),
	}
	c.loop = &control.Loop{
		Name: "statefulset", Client: cfg.Client, Log: cfg.Log, Workers: 4,
		Reconcile: c.reconcile,
		Sources: []control.Source{
			{GVK: kube.StatefulSet, Keys: control.OwnKeyUnlessStatus},
			{GVK: kube.Pod, Keys: c.pods.Keys},
			{GVK: kube.ControllerRevision, Keys: c.history.Keys},
			{GVK: kube.PersistentVolumeClaim, Keys: c.claimKeys},
			{GVK: kube.Node, Keys: c.nodeKeys},
		},
	}
	return c
}

// Run reconciles until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

// report returns upstream's text of an event about a pod.
func report(s *appsv1.StatefulSet, verb, pod string, err error) string {
	verb = strings.ToUpper(verb[:1]) + verb[1:]
	if err != nil {
		return fmt.Sprintf("%s Pod %s in StatefulSet %s failed error: %v", verb, pod, s.Name, err)
	}
	return fmt.Sprintf("%s Pod %s in StatefulSet %s successful", verb, pod, s.Name)
}

// claimKeys returns the StatefulSets that wait for the end of a claim, or need it again.
func (c *Controller) claimKeys(ch control.Change) []control.Key {
	if ch.New != nil {
		return nil
	}
	var keys []control.Key
	for _, s := range control.List[*appsv1.StatefulSet](c.client, kube.StatefulSet, ch.Old.GetNamespace()) {
		if claimOf(s, ch.Old.GetName()) {
			keys = append(keys, control.KeyOf(s))
		}
	}
	return keys
}

// nodeKeys returns the StatefulSets with pods on a node that comes back: their updates have waited for it.
func (c *Controller) nodeKeys(ch control.Change) (keys []control.Key) {
	old, _ := ch.Old.(*corev1.Node)
	now, _ := ch.New.(*corev1.Node)
	if old == nil || now == nil || !control.NodeDark(old) || control.NodeDark(now) {
		return nil
	}
	for _, p := range c.client.Index(kube.Pod, control.NodeIndex, now.Name) {
		if ref := metav1.GetControllerOfNoCopy(p); ref != nil && ref.Kind == kube.StatefulSet.Kind {
			keys = append(keys, control.Key{Namespace: p.GetNamespace(), Name: ref.Name})
		}
	}
	return keys
}

func (c *Controller) reconcile(ctx context.Context, key control.Key) (time.Duration, error) {
	s, ok := control.Get[*appsv1.StatefulSet](c.client, kube.StatefulSet, key.Namespace, key.Name)
	if !ok {
		c.pods.Forget(key)
		c.failed.Forget(key)
		return 0, nil
	}
	if control.NamespaceEnding(c.client, s.Namespace) {
		return 0, nil
	}
	if wait := c.pods.Gather(s, time.Now()); wait > 0 {
		return wait, nil
	}
	mine, err := c.pods.Claim(ctx, s)
	if err != nil {
		return 0, err
	}
	if s.DeletionTimestamp != nil { // its revisions may be gone: only what its pods are is counted
		st := &state{set: s, now: time.Now(), current: version{name: s.Status.CurrentRevision}, update: version{name: s.Status.UpdateRevision}}
		st.place(mine)
		return 0, c.writeStatus(ctx, s, st.status())
	}
	r, err := c.history.Sync(ctx, s, s.Status.CollisionCount)
	if err != nil {
		return 0, err
	}
	st, err := c.observe(s, mine, r)
	if err != nil {
		return 0, err
	}
	return c.apply(ctx, st, r, decide(st))
}

// observe puts together what decide depends on.
func (c *Controller) observe(s *appsv1.StatefulSet, mine podset.Claimed, r revision.Revisions) (*state, error) {
	st := &state{set: s, now: time.Now(), update: version{r.Current.Name, &s.Spec.Template}}
	st.replaceable = podset.Replaceable(c.images, c.client, s, r.Current.Name, &s.Spec.Template.Spec, func() { c.loop.Enqueue(control.KeyOf(s)) })
	st.current = st.update
	for _, cr := range r.All {
		if cr.Name == s.Status.CurrentRevision && cr.UID != r.Current.UID {
			t, err := revision.Template(cr)
			if err != nil {
				return nil, err
			}
			st.current = version{cr.Name, t}
		}
	}
	st.claim = func(name string) *corev1.PersistentVolumeClaim {
		claim, _ := control.Get[*corev1.PersistentVolumeClaim](c.client, kube.PersistentVolumeClaim, s.Namespace, name)
		return claim
	}
	st.dark = func(node string) bool {
		n, ok := control.Get[*corev1.Node](c.client, kube.Node, "", node)
		return ok && control.NodeDark(n)
	}
	st.held = func(pod string) time.Duration { return c.failed.Wait(control.KeyOf(s), pod, st.now) }
	st.place(mine)
	return st, nil
}

// apply does what decide wants: claims before the pods that use them. The change of each pod queues the key again.
func (c *Controller) apply(ctx context.Context, st *state, r revision.Revisions, a actions) (time.Duration, error) {
	s := st.set
	failure := c.act(ctx, st, a)
	next := st.status()
	if next.CollisionCount = r.Collisions; next.CollisionCount == nil {
		next.CollisionCount = new(int32) // as Kubernetes writes it
	}
	if failure == nil {
		next.CurrentReplicas = max(0, next.CurrentReplicas-a.updating)
	}
	st.complete(&next)
	changed := len(a.create)+len(a.remove) > 0
	if changed && failure == nil && s.Status.ObservedGeneration == s.Generation && next.CurrentRevision == s.Status.CurrentRevision &&
		next.UpdateRevision == s.Status.UpdateRevision {
		return st.after, nil // each of those pods queues the key again; one status counts them all
	}
	if err := c.writeStatus(ctx, s, next); err != nil {
		return 0, control.JoinErrors(failure, err)
	}
	if wait := c.pods.RefusedFor(s, st.now); wait > 0 && failure != nil {
		st.again(wait)
		return st.after, nil // the Event reports it
	}
	if failure != nil || changed {
		return st.after, failure
	}
	used := map[string]bool{st.current.name: true}
	for _, p := range st.all {
		used[p.Labels[appsv1.StatefulSetRevisionLabel]] = true
	}
	return st.after, c.history.Truncate(ctx, r, s.Spec.RevisionHistoryLimit, func(cr *appsv1.ControllerRevision) bool { return used[cr.Name] })
}

// act makes, changes and deletes claims and pods. While a refusal holds, no claims are made for pods that will not be.
func (c *Controller) act(ctx context.Context, st *state, a actions) error {
	s := st.set
	var errs []error
	create := a.create
	if len(create) == 0 || c.pods.RefusedFor(s, st.now) == 0 {
		errs = append(errs, c.makeClaims(ctx, s, a.claims))
	}
	for _, ch := range a.update {
		_, err := c.client.Update(ctx, ch.obj, "")
		if err = control.IgnoreNotFound(err); ch.pod != "" && !apierrors.IsConflict(err) {
			c.podEvent(s, "update", ch.pod, err)
		}
		errs = append(errs, err)
	}
	for _, b := range a.blocked {
		c.podEvent(s, "create", b.pod, b.err)
	}
	if err := control.JoinErrors(errs...); err != nil {
		return err
	}
	if len(create) > 0 {
		errs = append(errs, c.pods.Create(ctx, s, len(create), st.now, func(i int) *corev1.Pod { return create[i] }))
	}
	for _, p := range a.remove {
		if p.Status.Phase == corev1.PodFailed {
			c.failed.Next(control.KeyOf(s), p.Name, st.now)
		}
	}
	if len(a.remove) > 0 {
		errs = append(errs, c.pods.Delete(ctx, s, a.remove[:min(len(a.remove), podset.MaxBurst)]))
	}
	return control.JoinErrors(errs...)
}

func (c *Controller) podEvent(s *appsv1.StatefulSet, verb, pod string, err error) {
	kind, reason := corev1.EventTypeNormal, "Successful"
	if err != nil {
		kind, reason = corev1.EventTypeWarning, "Failed"
	}
	c.events.Event(s, kind, reason+map[string]string{"create": "Create", "update": "Update"}[verb], "%s", report(s, verb, pod, err))
}

// makeClaims creates the claims; one that exists by now is what is wanted.
func (c *Controller) makeClaims(ctx context.Context, s *appsv1.StatefulSet, claims []podClaim) error {
	return control.InParallel(len(claims), func(i int) error {
		claim, pod := claims[i].claim, claims[i].pod
		_, err := c.client.Create(ctx, claim)
		switch {
		case apierrors.IsAlreadyExists(err) || apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
			return nil
		case err != nil:
			c.events.Event(s, corev1.EventTypeWarning, "FailedCreate", "Create Claim %s for Pod %s in StatefulSet %s failed error: %v", claim.Name, pod, s.Name, err)
			return fmt.Errorf("create claim %s: %w", claim.Name, err)
		}
		c.events.Event(s, corev1.EventTypeNormal, "SuccessfulCreate", "Create Claim %s Pod %s in StatefulSet %s success", claim.Name, pod, s.Name)
		return nil
	})
}

// writeStatus writes the status when it differs.
func (c *Controller) writeStatus(ctx context.Context, s *appsv1.StatefulSet, status appsv1.StatefulSetStatus) error {
	if equality.Semantic.DeepEqual(s.Status, status) {
		return nil
	}
	up := s.DeepCopy()
	up.Status = status
	_, err := c.client.Update(ctx, up, "status")
	return control.IgnoreNotFound(err)
}
