// Package revision keeps the pod templates that a DaemonSet or a StatefulSet has had, as ControllerRevisions: which one is
// current, which pods were made of an earlier one, and what a rollback goes back to.
//
//	pod template ─► Data ─► is there an equal revision?
//	                          no:  a new one, NAME-HASH, with the next number
//	                          yes: it is the current one; a rollback gives it the next number
//
// Revisions are compared by what they store, never by their names: a name only makes a repeated creation fail. A revision that
// collides (another template, or another owner, has its name) gets another hash from the owner's count of collisions.
package revision

import (
	"context"
	"fmt"
	"maps"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
)

// maxCollisions bounds how many names one creation tries.
const maxCollisions = 10

// Config is what a History needs. All fields are required.
type Config[O kube.Object] struct {
	Client   control.Client
	Kind     kube.GVK // of the owners
	Selector func(owner O) *metav1.LabelSelector
	Template func(owner O) *corev1.PodTemplateSpec
	// HashLabel is the label of a revision that carries its hash.
	HashLabel string
}

// History finds, makes and removes the revisions of owners of one kind. Its methods may be called from several workers, each
// with an owner of its own.
type History[O kube.Object] struct {
	cfg     Config[O]        // does not change after New
	orphans *control.Orphans // revisions without a controller, kept by Keys
}

// New returns the History of a controller. Keys must be its loop's only source of ControllerRevisions.
func New[O kube.Object](cfg Config[O]) *History[O] {
	return &History[O]{cfg: cfg, orphans: control.NewOrphans(cfg.Client, kube.ControllerRevision)}
}

// Keys is the Source.Keys for ControllerRevisions: the owners that a revision belongs to, has belonged to, or could belong to.
// It must see every change of a revision, in order.
func (h *History[O]) Keys(ch control.Change) []control.Key {
	h.orphans.Saw(ch)
	var keys []control.Key
	for _, obj := range []kube.Object{ch.Old, ch.New} {
		if obj == nil {
			continue
		}
		if ref := metav1.GetControllerOfNoCopy(obj); ref != nil {
			if ref.Kind == h.cfg.Kind.Kind {
				keys = append(keys, control.Key{Namespace: obj.GetNamespace(), Name: ref.Name})
			}
			continue
		}
		for _, owner := range control.List[O](h.cfg.Client, h.cfg.Kind, obj.GetNamespace()) {
			if s, err := metav1.LabelSelectorAsSelector(h.cfg.Selector(owner)); err == nil && !s.Empty() && s.Matches(labels.Set(obj.GetLabels())) {
				keys = append(keys, control.KeyOf(owner))
			}
		}
	}
	return keys
}

// Revisions are the revisions of one owner.
type Revisions struct {
	All []*appsv1.ControllerRevision // the latest last
	// Current stores the owner's pod template.
	Current *appsv1.ControllerRevision
	// Same are those that store the same template as Current, Current included: pods of each of them are up to date.
	Same []*appsv1.ControllerRevision
	// Collisions is for the owner's status; nil when there was none.
	Collisions *int32
}

// Sync claims the owner's revisions, and makes the current one when there is none. collisions is what the owner's status counts.
func (h *History[O]) Sync(ctx context.Context, owner O, collisions *int32) (Revisions, error) {
	r := Revisions{Collisions: collisions}
	selector, err := metav1.LabelSelectorAsSelector(h.cfg.Selector(owner))
	if err != nil {
		return r, fmt.Errorf("selector: %w", err)
	}
	mine, err := control.Claim(ctx, h.cfg.Client, owner, h.cfg.Kind, selector,
		h.cfg.Client.Index(kube.ControllerRevision, control.OwnerIndex, string(owner.GetUID())), h.orphans.In(owner.GetNamespace()))
	if err != nil {
		return r, err
	}
	for _, obj := range mine {
		if obj.GetDeletionTimestamp() == nil {
			r.All = append(r.All, obj.(*appsv1.ControllerRevision))
		}
	}
	byNumber(r.All)
	template := h.cfg.Template(owner)
	data, err := Data(template)
	if err != nil {
		return r, err
	}
	next := int64(1)
	for _, cr := range r.All {
		if equal(cr, template, data) {
			r.Same, r.Current = append(r.Same, cr), cr
		} else {
			next = max(next, cr.Revision+1)
		}
	}
	switch {
	case r.Current == nil:
		err = h.create(ctx, owner, &r, data, next)
	case r.Current.Revision < next: // a rollback
		err = h.renumber(ctx, &r, next)
	}
	return r, err
}

// renumber makes the current revision the latest one.
func (h *History[O]) renumber(ctx context.Context, r *Revisions, number int64) error {
	up := r.Current.DeepCopy()
	up.Revision = number
	got, err := h.cfg.Client.Update(ctx, up, "")
	if err != nil {
		return fmt.Errorf("number revision %s: %w", up.Name, err)
	}
	h.replace(r, got.(*appsv1.ControllerRevision))
	return nil
}

func (h *History[O]) replace(r *Revisions, cr *appsv1.ControllerRevision) {
	for _, list := range [][]*appsv1.ControllerRevision{r.All, r.Same} {
		for i := range list {
			if list[i].UID == cr.UID {
				list[i] = cr
			}
		}
	}
	r.Current = cr
	byNumber(r.All)
}

// create makes the current revision. A name that is taken by something else is a collision.
func (h *History[O]) create(ctx context.Context, owner O, r *Revisions, data []byte, number int64) error {
	var taken error
	for range maxCollisions {
		cr := h.build(owner, data, number, r.Collisions)
		got, err := h.cfg.Client.Create(ctx, cr)
		if err == nil {
			r.Current = got.(*appsv1.ControllerRevision)
			r.All, r.Same = append(r.All, r.Current), append(r.Same, r.Current)
			return nil
		}
		if !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("create revision %s: %w", cr.Name, err)
		}
		taken = err
		n := int32(1)
		if r.Collisions != nil {
			n = *r.Collisions + 1
		}
		r.Collisions = &n
	}
	return fmt.Errorf("create revision: %d names are taken: %w", maxCollisions, taken)
}

func (h *History[O]) build(owner O, data []byte, number int64, collisions *int32) *appsv1.ControllerRevision {
	sum := hash(data, collisions)
	l := maps.Clone(h.cfg.Template(owner).Labels)
	if l == nil {
		l = map[string]string{}
	}
	l[h.cfg.HashLabel] = sum
	return &appsv1.ControllerRevision{
		TypeMeta: metav1.TypeMeta{APIVersion: "apps/v1", Kind: "ControllerRevision"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace:       owner.GetNamespace(),
			Name:            name(owner.GetName(), sum),
			Labels:          l,
			Annotations:     maps.Clone(owner.GetAnnotations()), // kubectl rollout history shows the change-cause among them
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(owner, h.cfg.Kind)},
		},
		Data:     runtime.RawExtension{Raw: data},
		Revision: number,
	}
}

// Truncate deletes the earliest revisions beyond the limit. Current and those that live names stay.
func (h *History[O]) Truncate(ctx context.Context, r Revisions, limit *int32, live func(cr *appsv1.ControllerRevision) bool) error {
	for _, cr := range Surplus(r.All, limit, func(cr *appsv1.ControllerRevision) bool { return cr.UID == r.Current.UID || live(cr) }) {
		err := h.cfg.Client.Delete(ctx, kube.ControllerRevision, cr.Namespace, cr.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &cr.UID}})
		if control.IgnoreNotFound(err) != nil && !apierrors.IsConflict(err) {
			return fmt.Errorf("delete revision %s: %w", cr.Name, err)
		}
	}
	return nil
}
