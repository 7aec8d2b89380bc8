package fieldmanager

import (
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/managedfields"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

// A Scale is made from its parent and has no managers of its own. While it is written they are those of the parent's replicas, and
// afterwards the parent gets back what became of them.

// Scaled records in parent, a copy, that the request's manager replaces the body before, made from parent, with next.
func (m *Managers) Scaled(ctx context.Context, q *resource.Request, parent kube.Object, before, next runtime.Object) error {
	sub := q.Kind.Working().Subresources[q.Subresource]
	if sub.Replicas == nil || !Tracked(parent) {
		return nil
	}
	h := m.scale(q, parent)
	if err := own(h, before); err != nil {
		return err
	}
	var out runtime.Object
	err := contained(func() error {
		f, err := m.scaler(ctx, q, sub)
		if err != nil {
			return err
		}
		out, err = f.Update(before, next, q.Manager)
		return err
	})
	if err != nil { // as upstream: what cannot be tracked is not, and the write goes on
		m.log.Warn("managers are not recorded", "kind", q.Kind.GVK.Kind, "namespace", q.Namespace, "name", q.Name, "subresource", q.Subresource, "error", err)
		next.(metav1.Object).SetManagedFields(nil)
		out = next
	}
	return m.giveBack(h, out, parent)
}

// ApplyScale returns what the configuration makes of a body, and records its managers in parent, a copy, of the kind as.
func (m *Managers) ApplyScale(ctx context.Context, q *resource.Request, as *resource.Kind, parent kube.Object, body runtime.Object, c *Configuration) (runtime.Object, error) {
	sub := q.Kind.Working().Subresources[q.Subresource]
	if err := bounded(c.fields, len(parent.GetManagedFields())); err != nil {
		return nil, err
	}
	var h *managedfields.ScaleHandler
	var out runtime.Object
	err := contained(func() error {
		if !Tracked(parent) {
			if err := m.begin(ctx, q, as, parent); err != nil {
				return err
			}
		}
		h = m.scale(q, parent)
		if err := own(h, body); err != nil {
			return err
		}
		f, err := m.scaler(ctx, q, sub)
		if err != nil {
			return err
		}
		out, err = f.Apply(body, c.object(), q.Manager, c.Force)
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, m.giveBack(h, out, parent)
}

// scale returns upstream's mapping between the managers of parent and those of its Scale.
func (m *Managers) scale(q *resource.Request, parent kube.Object) *managedfields.ScaleHandler {
	paths := managedfields.ResourcePathMappings{}
	for _, v := range m.versions(q.Kind) {
		paths[string(apiVersion(v))] = nil
		if s := v.Subresources[q.Subresource]; s != nil && s.Replicas != nil {
			paths[string(apiVersion(v))] = fieldPath(s.Replicas)
		}
	}
	return managedfields.NewScaleHandler(parent.GetManagedFields(), q.Kind.GVK.GroupVersion(), paths)
}

// own sets the managers of a body to those that its parent has.
func own(h *managedfields.ScaleHandler, body runtime.Object) error {
	entries, err := h.ToSubresource()
	if err != nil {
		return err
	}
	obj, ok := body.(metav1.Object)
	if !ok {
		return fmt.Errorf("%T has no metadata", body)
	}
	obj.SetManagedFields(entries)
	return nil
}

// giveBack records the managers of a body in its parent, and takes them off the body.
func (m *Managers) giveBack(h *managedfields.ScaleHandler, body runtime.Object, parent kube.Object) error {
	obj, ok := body.(metav1.Object)
	if !ok {
		return fmt.Errorf("%T has no metadata", body)
	}
	entries, err := h.ToParent(obj.GetManagedFields())
	if err != nil {
		return err
	}
	before := parent.GetManagedFields()
	parent.SetManagedFields(entries)
	m.stamp(before, parent)
	obj.SetManagedFields(nil)
	return nil
}

// scaler returns upstream's manager for writes to a Scale.
func (m *Managers) scaler(ctx context.Context, q *resource.Request, sub *resource.Subresource) (*managedfields.FieldManager, error) {
	return managedfields.NewDefaultCRDFieldManager(m.types, converter{ctx, m.kinds}, noDefaults{}, creater{m.kinds}, sub.GVK,
		sub.GVK.GroupVersion(), q.Subresource, nil)
}
