package fieldmanager

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

// Kinds are the served kinds; *resource.Kinds is one.
type Kinds interface {
	Lookup(kube.GVK) (*resource.Kind, bool)
	// All returns every served kind. The slice is shared: read-only.
	All() []*resource.Kind
}

// Types describes types of the scheme; *openapi.Types is one.
type Types interface {
	// TypeConverter returns the description of objects of one type, or an error that says that it is not registered.
	TypeConverter(schema.GroupVersionKind) (managedfields.TypeConverter, error)
	// Release frees what is kept for the next call.
	Release()
}

// Managers tracks who manages which fields. It is safe for concurrent use.
type Managers struct {
	kinds Kinds
	now   func() time.Time
	log   *slog.Logger
	types *typeCache
}

// New returns the Managers of kinds. Without described (nil) every kind is deduced from its objects. All others are required.
func New(kinds Kinds, described Types, now func() time.Time, log *slog.Logger) *Managers {
	return &Managers{kinds: kinds, now: now, log: log, types: newTypeCache(kinds, described)}
}

// Tracked reports whether managers of the object's fields are recorded. It is cheap.
func Tracked(obj runtime.Object) bool {
	switch o := obj.(type) {
	case *unstructured.Unstructured:
		v, _, _ := unstructured.NestedFieldNoCopy(o.Object, "metadata", "managedFields")
		return v != nil
	case metav1.Object:
		return o.GetManagedFields() != nil // not nil and empty is a reset
	}
	return false
}

// Created prepares the managedFields of an object that is about to be created: those of an object that was copied with its
// managers go on, otherwise there are none. obj is of the kind as, in which the request is decided.
func (m *Managers) Created(ctx context.Context, q *resource.Request, as *resource.Kind, obj kube.Object) {
	if !Tracked(obj) {
		return
	}
	if entries := obj.GetManagedFields(); reset(entries) || checkEntries(entries) != nil {
		obj.SetManagedFields(nil)
		return
	}
	m.update(ctx, q, as, as.New(), obj)
}

// Updated records in obj, the next state of old, what the request's manager changes. Both are of the kind as, in which the request is
// decided; old is only read.
func (m *Managers) Updated(ctx context.Context, q *resource.Request, as *resource.Kind, old, obj kube.Object) {
	if Tracked(obj) || Tracked(old) {
		m.update(ctx, q, as, old, obj)
	}
}

// update runs upstream's manager. Where that fails the object is not tracked any more: its managers must not be wrong.
func (m *Managers) update(ctx context.Context, q *resource.Request, as *resource.Kind, live, obj kube.Object) {
	err := contained(func() error {
		if err := affordable(live, obj); err != nil {
			return err
		}
		f, err := m.manager(ctx, q, as, q.Subresource)
		if err != nil {
			return err
		}
		_, err = f.Update(live, obj, q.Manager)
		return err
	})
	if err != nil {
		m.log.Warn("object is not tracked any more", "kind", q.Kind.GVK.Kind, "namespace", obj.GetNamespace(), "name", obj.GetName(), "error", err)
		obj.SetManagedFields(nil)
		return
	}
	m.stamp(live.GetManagedFields(), obj)
}

// Apply returns what the configuration makes of live, with managedFields. Both are of the kind as, in which the request is decided. live
// is only read; nil: the object does not exist. The error is a Status where upstream's is one: of a conflict, of a configuration that is
// none.
func (m *Managers) Apply(ctx context.Context, q *resource.Request, as *resource.Kind, live kube.Object, c *Configuration) (kube.Object, error) {
	base := as.New()
	if live != nil {
		base = live.DeepCopyObject().(kube.Object) // the result may share memory with it
	}
	if err := c.affordable(base); err != nil {
		return nil, err
	}
	var out runtime.Object
	err := contained(func() error {
		f, err := m.manager(ctx, q, as, q.Subresource)
		if err != nil {
			return err
		}
		if live != nil && !Tracked(base) {
			if err := m.begin(ctx, q, as, base); err != nil {
				return err
			}
		}
		out, err = f.Apply(base, c.object(), q.Manager, c.Force)
		return err
	})
	if err != nil {
		return nil, err
	}
	obj, ok := out.(kube.Object)
	if !ok {
		return nil, fmt.Errorf("apply to %s: %T is no object", q.Kind.GVK.Kind, out)
	}
	m.stamp(base.GetManagedFields(), obj)
	return obj, nil
}

// manager returns upstream's manager for writes to the request's kind, or to sub of it, of objects of the kind as.
func (m *Managers) manager(ctx context.Context, q *resource.Request, as *resource.Kind, sub string) (*managedfields.FieldManager, error) {
	resets := map[fieldpath.APIVersion]fieldpath.Filter{}
	for _, v := range m.versions(q.Kind) {
		if s := v.Subresources[sub]; s != nil && s.Owns != nil {
			resets[apiVersion(v)] = onlyPaths(s.Owns)
		} else if paths := v.Resets(sub); len(paths) > 0 {
			resets[apiVersion(v)] = fieldpath.NewExcludeSetFilter(pathSet(paths))
		}
	}
	return managedfields.NewDefaultCRDFieldManager(m.types, converter{ctx, m.kinds}, noDefaults{}, creater{m.kinds}, q.Kind.GVK,
		as.GVK.GroupVersion(), sub, resets)
}

// versions returns the kinds that show the same stored objects as k.
func (m *Managers) versions(k *resource.Kind) []*resource.Kind {
	var out []*resource.Kind
	for _, other := range m.kinds.All() {
		if other.Stored().GVK == k.Stored().GVK {
			out = append(out, other)
		}
	}
	return out
}

func apiVersion(k *resource.Kind) fieldpath.APIVersion {
	return fieldpath.APIVersion(k.GVK.GroupVersion().String())
}

func pathSet(paths [][]string) *fieldpath.Set {
	set := fieldpath.NewSet()
	for _, p := range paths {
		set.Insert(fieldPath(p))
	}
	return set
}

// onlyPaths lets the fields at and below paths through.
func onlyPaths(paths [][]string) fieldpath.Filter {
	var matchers []*fieldpath.SetMatcher
	for _, p := range paths {
		parts := make([]any, len(p))
		for i, name := range p {
			parts[i] = name
			if name == "*" {
				parts[i] = fieldpath.MatchAnyPathElement()
			}
		}
		matchers = append(matchers, fieldpath.MakePrefixMatcherOrDie(parts...))
	}
	return fieldpath.NewIncludeMatcherFilter(matchers...)
}

func fieldPath(names []string) fieldpath.Path {
	path := make(fieldpath.Path, len(names))
	for i := range names {
		path[i] = fieldpath.PathElement{FieldName: &names[i]}
	}
	return path
}

// stamp sets the time of the entries that are new or changed by the registry's clock, to which upstream's manager does not go.
func (m *Managers) stamp(before []metav1.ManagedFieldsEntry, obj kube.Object) {
	entries := obj.GetManagedFields()
	now := metav1.NewTime(m.now().UTC().Truncate(time.Second))
	for i, e := range entries {
		same := func(b metav1.ManagedFieldsEntry) bool {
			return b.Manager == e.Manager && b.Operation == e.Operation && b.Subresource == e.Subresource && b.Time.Equal(e.Time)
		}
		if !slices.ContainsFunc(before, same) {
			entries[i].Time = &now
		}
	}
	if len(entries) > 0 {
		obj.SetManagedFields(entries)
	}
}

// reset reports whether entries mean that nobody manages anything any more: a list that is not missing but empty, or has one empty
// entry.
func reset(entries []metav1.ManagedFieldsEntry) bool {
	if len(entries) != 1 {
		return len(entries) == 0
	}
	e := entries[0]
	return e.Manager == "" && e.Operation == "" && e.APIVersion == "" && e.Time == nil && e.FieldsType == "" && e.FieldsV1 == nil && e.Subresource == ""
}

// contained runs upstream's code on what a client sent; a panic becomes an error.
func contained(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("managed fields: %v", p)
		}
	}()
	return f()
}
