// Package gc deletes objects whose owners are gone, by owner references.
//
// Background: the owner goes at once, its dependents after it. Foreground: the owner stays, marked, until the dependents
// that block it are gone. Orphan: the dependents lose their reference and stay. The last two are finalizers on the owner,
// put there by the deletion and taken away here.
//
// There is no graph in memory: what an object owns is looked up in the cache's index by owner UID, when the object goes or is
// marked. The cache applies commits in order across kinds, so an owner that it does not have while it
// has the dependent is gone.
package gc

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
)

// Config is what the controller needs.
type Config struct {
	Client control.Client
	Events control.Events // as garbage-collector-controller
	// Kinds are all that are stored: what can own and be owned. Those with NoGarbageCollection are left out.
	Kinds control.Kinds
	Log   *slog.Logger
}

// Controller reconciles objects with owners, and owners that are being deleted. Its fields are set by New and never nil.
type Controller struct {
	client control.Client
	events control.Events
	kinds  atomic.Pointer[kinds] // as of the last change; set before the first reconcile, never nil after
	loop   *control.Loop
}

// kinds are those that can own and be owned. They are immutable: a change makes a new value.
type kinds struct {
	all    []control.StoredKind
	byName map[schema.GroupKind]control.StoredKind // references name any version
}

// New returns a controller; Run starts it.
func New(cfg Config) *Controller {
	c := &Controller{client: cfg.Client, events: cfg.Events}
	c.loop = &control.Loop{Name: "gc", Client: cfg.Client, Log: cfg.Log, Workers: 4, Reconcile: c.reconcile, Every: &control.EveryKind{
		Kinds: cfg.Kinds, Changed: c.kindsChanged,
		Source: func(k control.StoredKind) (control.Source, bool) {
			return control.Source{GVK: k.GVK, Keys: c.keys}, !k.NoGarbageCollection
		},
	}}
	return c
}

// kindsChanged queues what a change of the kinds may change: objects whose owner is of a kind that is stored now, and owners that
// wait for dependents, which may be of a kind that is gone.
func (c *Controller) kindsChanged(now []control.StoredKind) {
	next := &kinds{byName: map[schema.GroupKind]control.StoredKind{}}
	for _, k := range now {
		if !k.NoGarbageCollection {
			next.all = append(next.all, k)
			next.byName[k.GVK.GroupKind()] = k
		}
	}
	last := c.kinds.Swap(next)
	if last == nil || maps.Equal(last.byName, next.byName) {
		return // at the start every object is queued anyway
	}
	for _, k := range next.all {
		for _, o := range c.client.List(k.GVK, "") {
			if foreground(o) || orphaning(o) || slices.ContainsFunc(o.GetOwnerReferences(), func(ref metav1.OwnerReference) bool {
				name := ownerKind(ref)
				_, had := last.byName[name]
				_, has := next.byName[name]
				return has && !had
			}) {
				c.loop.Enqueue(keyOf(k.GVK, o))
			}
		}
	}
}

// ownerKind returns the kind that a reference names, empty when it names none.
func ownerKind(ref metav1.OwnerReference) schema.GroupKind {
	gv, err := schema.ParseGroupVersion(ref.APIVersion)
	if err != nil {
		return schema.GroupKind{}
	}
	return schema.GroupKind{Group: gv.Group, Kind: ref.Kind}
}

// Run reconciles until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

func keyOf(gvk kube.GVK, o kube.Object) control.Key {
	return control.Key{GVK: gvk, Namespace: o.GetNamespace(), Name: o.GetName()}
}

// keys returns the object itself when its owners or its own deletion have changed; its dependents when it has gone; its owners,
// which may have waited for it, when it has gone or left them.
func (c *Controller) keys(ch control.Change) []control.Key {
	var keys []control.Key
	refsChanged := ch.Old == nil || ch.New == nil || !equality.Semantic.DeepEqual(ch.Old.GetOwnerReferences(), ch.New.GetOwnerReferences())
	if ch.New != nil && (refsChanged && len(ch.New.GetOwnerReferences()) > 0 || foreground(ch.New) || orphaning(ch.New)) {
		keys = append(keys, keyOf(ch.GVK, ch.New))
	}
	if ch.New == nil {
		keys = append(keys, c.keysOf(c.dependents(ch.Old.GetUID()))...)
	}
	if ch.Old != nil && refsChanged {
		for _, ref := range ch.Old.GetOwnerReferences() {
			if k, ok := c.ownerKey(ch.Old, ref); ok {
				keys = append(keys, k)
			}
		}
	}
	return keys
}

func (c *Controller) keysOf(deps []dependent) []control.Key {
	keys := make([]control.Key, len(deps))
	for i, d := range deps {
		keys[i] = keyOf(d.gvk, d.obj)
	}
	return keys
}

type dependent struct {
	gvk kube.GVK
	obj kube.Object
}

func (c *Controller) dependents(uid types.UID) []dependent {
	var out []dependent
	for _, k := range c.kinds.Load().all {
		for _, o := range c.client.Index(k.GVK, control.OwnerIndex, string(uid)) {
			out = append(out, dependent{k.GVK, o})
		}
	}
	return out
}

// ownerKey returns the key of the object that a reference names; ok is false when no stored object can have it.
func (c *Controller) ownerKey(obj kube.Object, ref metav1.OwnerReference) (control.Key, bool) {
	k, ok := c.kinds.Load().byName[ownerKind(ref)]
	if !ok || k.Namespaced && obj.GetNamespace() == "" {
		return control.Key{}, false
	}
	key := control.Key{GVK: k.GVK, Name: ref.Name}
	if k.Namespaced {
		key.Namespace = obj.GetNamespace()
	}
	return key, true
}

func (c *Controller) reconcile(ctx context.Context, key control.Key) (time.Duration, error) {
	obj, ok := c.client.Get(key.GVK, key.Namespace, key.Name)
	if !ok {
		return 0, nil
	}
	switch {
	case orphaning(obj):
		return 0, c.orphan(ctx, obj)
	case foreground(obj):
		return 0, c.dependentsFirst(ctx, obj)
	case obj.GetDeletionTimestamp() != nil:
		return 0, nil // it is being deleted already
	}
	return 0, c.attend(ctx, key.GVK, obj)
}

// orphan takes the object out of its dependents' references, then its finalizer away.
func (c *Controller) orphan(ctx context.Context, obj kube.Object) error {
	deps := c.dependents(obj.GetUID())
	err := control.InParallel(len(deps), func(i int) error {
		return c.dropRefs(ctx, deps[i].obj, []types.UID{obj.GetUID()})
	})
	if err != nil {
		return err
	}
	return c.dropFinalizer(ctx, obj, metav1.FinalizerOrphanDependents)
}

// dependentsFirst deletes the dependents of an object, and takes its finalizer away when none is left that blocks it.
func (c *Controller) dependentsFirst(ctx context.Context, obj kube.Object) error {
	blocked := false
	for _, d := range c.dependents(obj.GetUID()) {
		if blocks(d.obj, obj.GetUID()) && !c.waitsFor(d.obj, obj.GetUID(), map[types.UID]bool{}) {
			blocked = true
		}
		if d.obj.GetDeletionTimestamp() == nil {
			c.loop.Enqueue(keyOf(d.gvk, d.obj))
		}
	}
	if blocked {
		return nil // each of them, when it goes, queues this key again
	}
	return c.dropFinalizer(ctx, obj, metav1.FinalizerDeleteDependents)
}

// waitsFor reports whether an object waits, by dependents that block it and are being deleted in the foreground too, for the one with this uid: it is
// that one, or in a circle with it, in which no object may block another. seen are those that were looked at.
func (c *Controller) waitsFor(obj kube.Object, uid types.UID, seen map[types.UID]bool) bool {
	own := obj.GetUID()
	if own == uid {
		return true
	}
	if seen[own] || !foreground(obj) {
		return false
	}
	seen[own] = true
	return slices.ContainsFunc(c.dependents(own), func(d dependent) bool { return blocks(d.obj, own) && c.waitsFor(d.obj, uid, seen) })
}

// attend deletes an object with owners when none of them keeps it, and otherwise drops references to owners that are gone.
func (c *Controller) attend(ctx context.Context, gvk kube.GVK, obj kube.Object) error {
	refs := obj.GetOwnerReferences()
	states := make([]ownerState, len(refs))
	for i, ref := range refs {
		states[i] = c.ownerState(obj, ref)
	}
	v, drop, waiting := judge(refs, states)
	switch v {
	case releaseRefs:
		return c.dropRefs(ctx, obj, drop)
	case remove:
		return c.remove(ctx, gvk, obj, waiting)
	}
	return nil
}

func (c *Controller) ownerState(obj kube.Object, ref metav1.OwnerReference) ownerState {
	key, ok := c.ownerKey(obj, ref)
	if !ok {
		if _, served := c.kinds.Load().byName[ownerKind(ref)]; served {
			c.events.Event(obj, corev1.EventTypeWarning, "OwnerRefInvalidNamespace",
				"ownerRef %s %s, uid %s: a cluster-scoped object cannot be owned by a namespaced one", ref.Kind, ref.Name, ref.UID)
		}
		return ownerUnknown
	}
	owner, ok := c.client.Get(key.GVK, key.Namespace, key.Name)
	switch {
	case !ok || owner.GetUID() != ref.UID:
		return ownerAbsent
	case foreground(owner):
		return ownerWaiting
	}
	return ownerThere
}

func (c *Controller) remove(ctx context.Context, gvk kube.GVK, obj kube.Object, waiting bool) error {
	deps := c.dependents(obj.GetUID())
	if waiting {
		for _, d := range deps {
			if !foreground(d.obj) {
				continue
			}
			// What it owns waits in turn for it, or for something that waits for it. In such a circle no object may block.
			var err error
			if obj, err = c.unblock(ctx, obj); err != nil || obj == nil {
				return err
			}
			break
		}
	}
	p := policy(obj, waiting, len(deps) > 0)
	uid, rv := obj.GetUID(), obj.GetResourceVersion()
	err := c.client.Delete(ctx, gvk, obj.GetNamespace(), obj.GetName(), metav1.DeleteOptions{
		PropagationPolicy: &p, Preconditions: &metav1.Preconditions{UID: &uid, ResourceVersion: &rv}})
	return control.IgnoreNotFound(err)
}

// unblock takes blockOwnerDeletion out of all of obj's references. It returns the object as it is then, nil when gone.
func (c *Controller) unblock(ctx context.Context, obj kube.Object) (kube.Object, error) {
	up := obj.DeepCopyObject().(kube.Object)
	refs := up.GetOwnerReferences()
	no := false
	for i := range refs {
		if refs[i].BlockOwnerDeletion != nil {
			refs[i].BlockOwnerDeletion = &no
		}
	}
	up.SetOwnerReferences(refs)
	got, err := c.client.Update(ctx, up, "")
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	return got, err
}

func (c *Controller) dropRefs(ctx context.Context, obj kube.Object, drop []types.UID) error {
	up := obj.DeepCopyObject().(kube.Object)
	up.SetOwnerReferences(withoutRefs(up.GetOwnerReferences(), drop))
	_, err := c.client.Update(ctx, up, "")
	return control.IgnoreNotFound(err)
}

func (c *Controller) dropFinalizer(ctx context.Context, obj kube.Object, f string) error {
	up := obj.DeepCopyObject().(kube.Object)
	up.SetFinalizers(withoutFinalizer(up.GetFinalizers(), f))
	_, err := c.client.Update(ctx, up, "")
	return control.IgnoreNotFound(err)
}
