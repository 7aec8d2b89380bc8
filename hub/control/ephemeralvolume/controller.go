// Package ephemeralvolume makes the claims of generic ephemeral volumes: one for each such volume of a pod, named POD-VOLUME, with
// the pod as its controller. Garbage collection deletes them with the pod.
package ephemeralvolume

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
)

// Config is what the controller needs.
type Config struct {
	Client control.Client
	Events control.Events // as ephemeral_volume
	Log    *slog.Logger
}

// Controller reconciles pods that have ephemeral volumes. Its fields do not change after New.
type Controller struct {
	client control.Client
	events control.Events
	loop   *control.Loop
}

// New returns a controller; Run starts it.
func New(cfg Config) *Controller {
	c := &Controller{client: cfg.Client, events: cfg.Events}
	c.loop = &control.Loop{
		Name: "ephemeralvolume", Client: cfg.Client, Log: cfg.Log, Reconcile: c.reconcile, Workers: 4,
		Sources: []control.Source{
			{GVK: kube.Pod, Keys: newPods},
			{GVK: kube.PersistentVolumeClaim, Keys: c.podsOfDeleted},
		},
	}
	return c
}

// Run reconciles until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

// newPods returns a new pod with an ephemeral volume: volumes never change.
func newPods(ch control.Change) []control.Key {
	if ch.Old != nil || !wants(ch.New.(*corev1.Pod)) {
		return nil
	}
	return []control.Key{control.KeyOf(ch.New)}
}

// wants reports whether claims are to be made for a pod.
func wants(p *corev1.Pod) bool {
	if p.DeletionTimestamp != nil {
		return false
	}
	for i := range p.Spec.Volumes {
		if p.Spec.Volumes[i].Ephemeral != nil {
			return true
		}
	}
	return false
}

// podsOfDeleted returns the pods that need a deleted claim again.
func (c *Controller) podsOfDeleted(ch control.Change) (keys []control.Key) {
	if ch.New != nil {
		return nil
	}
	for _, p := range control.Index[*corev1.Pod](c.client, kube.Pod, kube.ClaimIndex, ch.Old.GetNamespace()+"/"+ch.Old.GetName()) {
		if wants(p) {
			keys = append(keys, control.KeyOf(p))
		}
	}
	return keys
}

func (c *Controller) reconcile(ctx context.Context, key control.Key) (time.Duration, error) {
	p, ok := control.Get[*corev1.Pod](c.client, kube.Pod, key.Namespace, key.Name)
	if !ok || !wants(p) || control.NamespaceEnding(c.client, p.Namespace) {
		return 0, nil
	}
	for i := range p.Spec.Volumes {
		v := &p.Spec.Volumes[i]
		if v.Ephemeral == nil || v.Ephemeral.VolumeClaimTemplate == nil {
			continue
		}
		if err := c.ensure(ctx, p, v); err != nil {
			c.events.Event(p, corev1.EventTypeWarning, "FailedBinding", "ephemeral volume %s: %v", v.Name, err)
			return 0, fmt.Errorf("ephemeral volume %s: %w", v.Name, err)
		}
	}
	return 0, nil
}

// ensure makes the claim of a volume of the pod; one of that name that is not the pod's is an error, and left alone.
func (c *Controller) ensure(ctx context.Context, p *corev1.Pod, v *corev1.Volume) error {
	name, _ := kube.VolumeClaim(p, v)
	if have, ok := control.Get[*corev1.PersistentVolumeClaim](c.client, kube.PersistentVolumeClaim, p.Namespace, name); ok {
		return kube.CheckOwnClaim(p, have)
	}
	t := v.Ephemeral.VolumeClaimTemplate.DeepCopy()
	_, err := c.client.Create(ctx, &corev1.PersistentVolumeClaim{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "PersistentVolumeClaim"},
		ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: name, Labels: t.Labels, Annotations: t.Annotations,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(p, kube.Pod)}},
		Spec: t.Spec,
	})
	switch {
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return nil
	case err != nil:
		return fmt.Errorf("create PVC %s: %w", name, err)
	}
	return nil
}
