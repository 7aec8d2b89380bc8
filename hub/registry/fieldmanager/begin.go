package fieldmanager

import (
	"bytes"
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
	"sigs.k8s.io/structured-merge-diff/v6/typed"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

const (
	// beforeFirstApply manages what was in an object when tracking began, as upstream names it.
	beforeFirstApply = "before-first-apply"
	// clientSide is the manager of kubectl's client-side apply, which lastApplied belongs to.
	clientSide  = "kubectl-client-side-apply"
	lastApplied = "kubectl.kubernetes.io/last-applied-configuration"
)

// begin begins to track obj, an object that was written without. Its fields are managed by beforeFirstApply, apart from those that
// client-side apply has set and nothing has changed since: their manager is that of client-side apply, so that kubectl finds it when
// a user goes over to server-side apply, and takes over what it set and nothing else.
func (m *Managers) begin(ctx context.Context, q *resource.Request, as *resource.Kind, obj kube.Object) error {
	f, err := m.manager(ctx, q, as, "") // what an object has is a matter of the object, whatever is applied to
	if err != nil {
		return err
	}
	if _, err := f.Update(as.New(), obj, beforeFirstApply); err != nil {
		return fmt.Errorf("record managers before the first apply: %w", err)
	}
	entries := obj.GetManagedFields()
	if len(entries) != 1 {
		return nil
	}
	applied := m.appliedByClient(ctx, q, obj)
	if applied == nil {
		return nil
	}
	all := &fieldpath.Set{}
	if err := all.FromJSON(bytes.NewReader(entries[0].FieldsV1.GetRawBytes())); err != nil {
		return fmt.Errorf("record managers before the first apply: %w", err)
	}
	split := entries[:0:0]
	for _, part := range []struct {
		manager string
		set     *fieldpath.Set
	}{{beforeFirstApply, all.Difference(applied)}, {clientSide, all.Intersection(applied)}} {
		if part.set.Empty() {
			continue
		}
		e, err := fields(part.manager, entries[0].APIVersion, part.set)
		if err != nil {
			return err
		}
		e.Time = entries[0].Time
		split = append(split, e)
	}
	obj.SetManagedFields(split)
	return nil
}

// fields returns the entry of a manager.
func fields(manager, apiVersion string, set *fieldpath.Set) (metav1.ManagedFieldsEntry, error) {
	text, err := set.ToJSON()
	if err != nil {
		return metav1.ManagedFieldsEntry{}, fmt.Errorf("encode the fields of %s: %w", manager, err)
	}
	return metav1.ManagedFieldsEntry{Manager: manager, Operation: metav1.ManagedFieldsOperationUpdate, APIVersion: apiVersion,
		FieldsType: "FieldsV1", FieldsV1: metav1.NewFieldsV1(string(text))}, nil
}

// appliedByClient returns the fields of obj that are as client-side apply has left them, in the request's version; nil when it did
// not write the object, or what it left cannot be read.
func (m *Managers) appliedByClient(ctx context.Context, q *resource.Request, obj kube.Object) *fieldpath.Set {
	text := obj.GetAnnotations()[lastApplied]
	if text == "" {
		return nil
	}
	config := &unstructured.Unstructured{}
	if err := kjson.UnmarshalCaseSensitivePreserveInts([]byte(text), &config.Object); err != nil {
		return nil
	}
	if n, depth := count(config.Object, 0); config.GroupVersionKind() != q.Kind.GVK || n > maxFields || depth > maxDepth {
		return nil
	}
	before, err := m.types.ObjectToTyped(config, typed.AllowDuplicates)
	if err != nil {
		return nil
	}
	live, err := converter{ctx, m.kinds}.ConvertToVersion(obj, q.Kind.GVK.GroupVersion())
	if err != nil {
		return nil
	}
	now, err := m.types.ObjectToTyped(live, typed.AllowDuplicates)
	if err != nil {
		return nil
	}
	set, err := before.ToFieldSet()
	if err != nil {
		return nil
	}
	changed, err := before.Compare(now)
	if err != nil {
		return nil
	}
	set = set.Difference(changed.Modified).Difference(changed.Added).Difference(changed.Removed)
	// kubectl looks for who manages the annotation.
	set.Insert(fieldPath([]string{"metadata", "annotations", lastApplied}))
	return set
}
