// Package volumebinder binds claims to volumes, by Kubernetes' rules, and does what the reclaim policy says when a claim is gone.
//
//	claim ─► bound already ─► statuses of both, or Lost
//	      ─► names a volume, or one that is free fits ─► Bind: both name each other, in one commit
//	      ─► its class waits for a pod ─► nothing: the scheduler binds it, with Bind or Provision, in the commit that binds the pod
//	      ─► an external provisioner ─► annotations that it looks for
//	volume ─► Available, Bound, Released, Failed ─► reclaim policy
//
// Decisions are functions of the cache (world); the controller reads, writes and reports. See docs/storage.md.
package volumebinder

import (
	"context"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	storage "k8s.io/component-helpers/storage/volume"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/localpath"
)

// Config is what the controller needs.
type Config struct {
	Client control.Client
	Events control.Events // as persistentvolume-controller
	Log    *slog.Logger
}

// Controller reconciles claims and volumes. Its fields do not change after New.
type Controller struct {
	client control.Client
	events control.Events
	loop   *control.Loop
}

// New returns a controller; Run starts it.
func New(cfg Config) *Controller {
	c := &Controller{client: cfg.Client, events: cfg.Events}
	// One worker: two claims must not choose one volume at a time. If they did, one of the commits would fail.
	c.loop = &control.Loop{
		Name: "volumebinder", Client: cfg.Client, Log: cfg.Log, Reconcile: c.reconcile,
		Sources: []control.Source{
			{GVK: kube.PersistentVolumeClaim, Keys: c.claimKeys},
			{GVK: kube.PersistentVolume, Keys: c.volumeKeys},
			{GVK: kube.StorageClass, Keys: c.classKeys},
			{GVK: kube.Node, Keys: c.nodeKeys},
		},
	}
	return c
}

// Run reconciles until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

func claimKey(namespace, name string) control.Key {
	return control.Key{GVK: kube.PersistentVolumeClaim, Namespace: namespace, Name: name}
}

func volumeKey(name string) control.Key {
	return control.Key{GVK: kube.PersistentVolume, Name: name}
}

// claimKeys returns the claim, and the volumes that it names or that are for it.
func (c *Controller) claimKeys(ch control.Change) (keys []control.Key) {
	claim := ch.Object().(*corev1.PersistentVolumeClaim)
	if ch.New != nil {
		keys = append(keys, claimKey(claim.Namespace, claim.Name))
		if ch.Old != nil && ch.Old.(*corev1.PersistentVolumeClaim).Spec.VolumeName == claim.Spec.VolumeName {
			return keys // nothing else depends on the rest of it
		}
	}
	if name := claim.Spec.VolumeName; name != "" {
		keys = append(keys, volumeKey(name))
	}
	for _, v := range c.client.Index(kube.PersistentVolume, kube.ClaimIndex, claim.Namespace+"/"+claim.Name) {
		keys = append(keys, volumeKey(v.GetName()))
	}
	return keys
}

// volumeKeys returns the volume, the claims that it is or was for, and, of one that has become free, the claims that may want it.
func (c *Controller) volumeKeys(ch control.Change) (keys []control.Key) {
	for _, o := range []kube.Object{ch.Old, ch.New} {
		if o == nil {
			continue
		}
		v := o.(*corev1.PersistentVolume)
		if ref := v.Spec.ClaimRef; ref != nil {
			keys = append(keys, claimKey(ref.Namespace, ref.Name))
		}
	}
	if ch.New == nil {
		return keys
	}
	v := ch.New.(*corev1.PersistentVolume)
	if v.Spec.ClaimRef != nil {
		return append(keys, volumeKey(v.Name))
	}
	// Claims that name the volume, bound before or not, come before it is Available to others.
	keys = append(keys, c.claims(func(claim *corev1.PersistentVolumeClaim) bool { return claim.Spec.VolumeName == v.Name })...)
	keys = append(keys, volumeKey(v.Name))
	return append(keys, c.claims(func(claim *corev1.PersistentVolumeClaim) bool {
		return unbound(claim) && storage.GetPersistentVolumeClaimClass(claim) == storage.GetPersistentVolumeClass(v)
	})...)
}

// classKeys returns the claims that wait for a volume of the class, and those that have none when the class may be the default.
func (c *Controller) classKeys(ch control.Change) []control.Key {
	if ch.New == nil {
		return nil
	}
	name := ch.New.GetName()
	return c.claims(func(claim *corev1.PersistentVolumeClaim) bool {
		return unbound(claim) && (storage.GetPersistentVolumeClaimClass(claim) == name || !storage.PersistentVolumeClaimHasClass(claim))
	})
}

// unbound reports whether a claim waits for any volume.
func unbound(claim *corev1.PersistentVolumeClaim) bool {
	_, completed := claim.Annotations[kube.BindCompleted]
	return !completed && claim.Spec.VolumeName == ""
}

// claims returns the keys of the claims that want accepts.
func (c *Controller) claims(want func(*corev1.PersistentVolumeClaim) bool) (keys []control.Key) {
	for _, claim := range control.List[*corev1.PersistentVolumeClaim](c.client, kube.PersistentVolumeClaim, "") {
		if want(claim) {
			keys = append(keys, claimKey(claim.Namespace, claim.Name))
		}
	}
	return keys
}

// nodeKeys returns the volumes whose node will never remove them.
func (c *Controller) nodeKeys(ch control.Change) (keys []control.Key) {
	if ch.New != nil {
		return nil
	}
	for _, v := range control.List[*corev1.PersistentVolume](c.client, kube.PersistentVolume, "") {
		if localpath.Node(v) == ch.Old.GetName() {
			keys = append(keys, volumeKey(v.Name))
		}
	}
	return keys
}

func (c *Controller) reconcile(ctx context.Context, key control.Key) (time.Duration, error) {
	obj, ok := c.client.Get(key.GVK, key.Namespace, key.Name)
	if !ok {
		return 0, nil
	}
	var a actions
	switch o := obj.(type) {
	case *corev1.PersistentVolumeClaim:
		a = world{c.client}.claim(o)
	case *corev1.PersistentVolume:
		a = world{c.client}.ofVolume(o)
	}
	if len(a.writes) > 0 {
		if err := c.client.Commit(ctx, a.writes); err != nil {
			return 0, control.IgnoreNotFound(err)
		}
	}
	if v := a.delete; v != nil {
		uid := v.UID
		err := c.client.Delete(ctx, kube.PersistentVolume, "", v.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
		if err = control.IgnoreNotFound(err); err != nil {
			return 0, err
		}
	}
	for _, e := range a.events {
		c.events.Event(e.of, e.kind, e.reason, "%s", e.why)
	}
	return 0, nil
}
