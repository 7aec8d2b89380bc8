// Package namespace empties namespaces that are being deleted, and takes away their finalizer when nothing is left.
//
// Pods go first and are waited for, so that what protects or configures them outlives them; then everything else. What remains, and
// why, is in the namespace's conditions.
package namespace

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
)

// Config is what the controller needs.
type Config struct {
	Client control.Client
	// Kinds are all that are stored; objects of those in namespaces go with their namespace.
	Kinds control.Kinds
	Log   *slog.Logger
}

// Controller reconciles Namespaces. client and loop are set by New and do not change.
type Controller struct {
	client control.Client
	kinds  atomic.Pointer[[]control.StoredKind] // those in namespaces, pods first; set before the first reconcile, never nil after
	loop   *control.Loop
}

// New returns a controller; Run starts it.
func New(cfg Config) *Controller {
	c := &Controller{client: cfg.Client}
	c.loop = &control.Loop{
		Name: "namespace", Client: cfg.Client, Log: cfg.Log, Workers: 2, Reconcile: c.reconcile,
		Sources: []control.Source{{GVK: kube.Namespace}},
		Every: &control.EveryKind{
			Kinds: cfg.Kinds, Changed: c.kindsChanged,
			Source: func(k control.StoredKind) (control.Source, bool) {
				return control.Source{GVK: k.GVK, Keys: c.contentKeys}, k.Namespaced && !k.Expires
			},
		},
	}
	return c
}

// kindsChanged stores the kinds, and queues the namespaces that are ending: one may wait for a kind that is gone, or have objects
// of one that is new.
func (c *Controller) kindsChanged(now []control.StoredKind) {
	kinds := slices.DeleteFunc(slices.Clone(now), func(k control.StoredKind) bool { return !k.Namespaced })
	slices.SortStableFunc(kinds, func(a, b control.StoredKind) int { // pods before all others
		switch {
		case a.GVK == kube.Pod && b.GVK != kube.Pod:
			return -1
		case b.GVK == kube.Pod && a.GVK != kube.Pod:
			return 1
		}
		return 0
	})
	if c.kinds.Swap(&kinds) == nil {
		return // at the start every namespace is queued anyway
	}
	for _, ns := range c.client.List(kube.Namespace, "") {
		if ns.GetDeletionTimestamp() != nil {
			c.loop.Enqueue(control.KeyOf(ns))
		}
	}
}

// Run reconciles until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

// contentKeys returns the namespace if it is ending, when something in it has gone, come, or changed its finalizers.
func (c *Controller) contentKeys(ch control.Change) []control.Key {
	if ch.Old != nil && ch.New != nil && len(ch.Old.GetFinalizers()) == len(ch.New.GetFinalizers()) {
		return nil
	}
	ns, ok := c.client.Get(kube.Namespace, "", ch.Object().GetNamespace())
	if !ok || ns.GetDeletionTimestamp() == nil {
		return nil
	}
	return []control.Key{{Name: ns.GetName()}}
}

func (c *Controller) reconcile(ctx context.Context, key control.Key) (time.Duration, error) {
	ns, ok := control.Get[*corev1.Namespace](c.client, kube.Namespace, "", key.Name)
	if !ok || ns.DeletionTimestamp == nil {
		return 0, nil
	}
	if !slices.Contains(ns.Spec.Finalizers, corev1.FinalizerKubernetes) {
		return 0, nil // ours is done; other finalizers are other people's
	}
	left, failure := c.empty(ctx, ns.Name)
	up := ns.DeepCopy()
	up.Status.Phase = corev1.NamespaceTerminating
	up.Status.Conditions = conditions(ns.Status.Conditions, left, failure, time.Now())
	if !equality.Semantic.DeepEqual(up.Status, ns.Status) {
		got, err := c.client.Update(ctx, up, "status")
		if err != nil {
			return 0, control.JoinErrors(failure, control.IgnoreNotFound(err))
		}
		up = got.(*corev1.Namespace).DeepCopy()
	}
	if failure != nil || left.objects > 0 {
		return 0, failure
	}
	up.Spec.Finalizers = slices.DeleteFunc(up.Spec.Finalizers, func(f corev1.FinalizerName) bool { return f == corev1.FinalizerKubernetes })
	_, err := c.client.Update(ctx, up, "finalize")
	return 0, control.IgnoreNotFound(err)
}

// remains is what could not be deleted yet.
type remains struct {
	objects    int
	kinds      []string       // "pods. has 2 resource instances"
	finalizers map[string]int // how many objects each one holds
}

// empty deletes what is in the namespace and returns what is still there.
func (c *Controller) empty(ctx context.Context, ns string) (remains, error) {
	left := remains{finalizers: map[string]int{}}
	var errs []error
	for _, k := range *c.kinds.Load() {
		objs := c.client.List(k.GVK, ns)
		if len(objs) == 0 {
			continue
		}
		errs = append(errs, c.deleteAll(ctx, k.GVK, objs))
		if k.Expires {
			continue // not followed, so nothing would queue the namespace again once they are gone
		}
		left.objects += len(objs)
		left.kinds = append(left.kinds, fmt.Sprintf("%s has %d resource instances", resource(k), len(objs)))
		for _, o := range objs {
			for _, f := range o.GetFinalizers() {
				left.finalizers[f]++
			}
		}
		if k.GVK == kube.Pod {
			break // all others wait
		}
	}
	return left, control.JoinErrors(errs...)
}

func (c *Controller) deleteAll(ctx context.Context, gvk kube.GVK, objs []kube.Object) error {
	policy := metav1.DeletePropagationBackground
	return control.InParallel(len(objs), func(i int) error {
		o := objs[i]
		if o.GetDeletionTimestamp() != nil {
			return nil
		}
		uid := o.GetUID()
		err := c.client.Delete(ctx, gvk, o.GetNamespace(), o.GetName(), metav1.DeleteOptions{
			PropagationPolicy: &policy, Preconditions: &metav1.Preconditions{UID: &uid}})
		if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
			return nil
		}
		return err
	})
}

func resource(k control.StoredKind) string { return k.Plural + "." + k.GVK.Group }

// conditions returns how the deletion goes, as Kubernetes documents it for namespaces.
func conditions(old []corev1.NamespaceCondition, left remains, failure error, now time.Time) []corev1.NamespaceCondition {
	want := []corev1.NamespaceCondition{
		{Type: corev1.NamespaceDeletionDiscoveryFailure, Status: corev1.ConditionFalse, Reason: "ResourcesDiscovered", Message: "All resources successfully discovered"},
		{Type: corev1.NamespaceDeletionGVParsingFailure, Status: corev1.ConditionFalse, Reason: "ParsedGroupVersions", Message: "All legacy kube types successfully parsed"},
		{Type: corev1.NamespaceDeletionContentFailure, Status: corev1.ConditionFalse, Reason: "ContentDeleted", Message: "All content successfully deleted, may be waiting on finalization"},
		{Type: corev1.NamespaceContentRemaining, Status: corev1.ConditionFalse, Reason: "ContentRemoved", Message: "All content successfully removed"},
		{Type: corev1.NamespaceFinalizersRemaining, Status: corev1.ConditionFalse, Reason: "ContentHasNoFinalizers", Message: "All content-preserving finalizers finished"},
	}
	if failure != nil {
		want[2].Status, want[2].Reason, want[2].Message = corev1.ConditionTrue, "ContentDeletionFailed", "Failed to delete all resource types: "+failure.Error()
	}
	if left.objects > 0 {
		want[3].Status, want[3].Reason = corev1.ConditionTrue, "SomeResourcesRemain"
		want[3].Message = "Some resources are remaining: " + strings.Join(left.kinds, ", ")
	}
	if len(left.finalizers) > 0 {
		var parts []string
		for f, n := range left.finalizers {
			parts = append(parts, fmt.Sprintf("%s in %d resource instances", f, n))
		}
		slices.Sort(parts)
		want[4].Status, want[4].Reason = corev1.ConditionTrue, "SomeFinalizersRemain"
		want[4].Message = "Some content in the namespace has finalizers remaining: " + strings.Join(parts, ", ")
	}
	for i := range want {
		want[i].LastTransitionTime = metav1.NewTime(now.Truncate(time.Second))
		kube.KeepTransition(old, &want[i])
	}
	return append(want, kube.OtherConditions(old, want)...)
}
