// Package volumeprotection lets claims and volumes go that were deleted while they were in use: admission gives each a finalizer,
// and this controller takes it away when no pod uses the claim, and when the volume is not bound.
package volumeprotection

import (
	"context"
	"log/slog"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
)

var (
	volumes = corev1.SchemeGroupVersion.WithKind("PersistentVolume")
	claims  = corev1.SchemeGroupVersion.WithKind("PersistentVolumeClaim")
)

// Controller reconciles claims and volumes that are being deleted. Its fields do not change after New.
type Controller struct {
	client control.Client
	loop   *control.Loop
}

// New returns a controller; Run starts it.
func New(client control.Client, log *slog.Logger) *Controller {
	c := &Controller{client: client}
	own := func(ch control.Change) []control.Key {
		if ch.New == nil || ch.New.GetDeletionTimestamp() == nil {
			return nil
		}
		return []control.Key{{GVK: ch.GVK, Namespace: ch.New.GetNamespace(), Name: ch.New.GetName()}}
	}
	c.loop = &control.Loop{
		Name: "volumeprotection", Client: client, Log: log,
		Reconcile: c.reconcile,
		Sources: []control.Source{
			{GVK: volumes, Keys: own},
			{GVK: claims, Keys: own},
			{GVK: kube.Pod, Keys: released},
		},
	}
	return c
}

// Run reconciles until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

// released returns the claims of a pod that does not use them any more.
func released(ch control.Change) (keys []control.Key) {
	pod, ok := ch.Object().(*corev1.Pod)
	if !ok || ch.New != nil && !control.PodFinished(pod) {
		return nil
	}
	for _, name := range kube.PodClaims(pod) {
		keys = append(keys, control.Key{GVK: claims, Namespace: pod.Namespace, Name: name})
	}
	return keys
}

func (c *Controller) reconcile(ctx context.Context, key control.Key) (time.Duration, error) {
	obj, ok := c.client.Get(key.GVK, key.Namespace, key.Name)
	if !ok || obj.GetDeletionTimestamp() == nil {
		return 0, nil
	}
	finalizer := ""
	switch o := obj.(type) {
	case *corev1.PersistentVolume:
		if o.Status.Phase != corev1.VolumeBound {
			finalizer = kube.VolumeProtection
		}
	case *corev1.PersistentVolumeClaim:
		if !c.used(o) {
			finalizer = kube.ClaimProtection
		}
	}
	have := obj.GetFinalizers()
	if finalizer == "" || !slices.Contains(have, finalizer) {
		return 0, nil
	}
	up := obj.DeepCopyObject().(kube.Object)
	up.SetFinalizers(slices.DeleteFunc(slices.Clone(have), func(f string) bool { return f == finalizer }))
	_, err := c.client.Update(ctx, up, "")
	return 0, control.IgnoreNotFound(err)
}

// used reports whether a pod has the claim on a node. One that is not on a node yet does not get the claim any more: it is being
// deleted.
func (c *Controller) used(claim *corev1.PersistentVolumeClaim) bool {
	for _, p := range control.Index[*corev1.Pod](c.client, kube.Pod, kube.ClaimIndex, claim.Namespace+"/"+claim.Name) {
		if p.Spec.NodeName == "" || control.PodFinished(p) {
			continue
		}
		for i := range p.Spec.Volumes {
			name, ephemeral := kube.VolumeClaim(p, &p.Spec.Volumes[i])
			if name == claim.Name && (!ephemeral || kube.CheckOwnClaim(p, claim) == nil) {
				return true
			}
		}
	}
	return false
}
