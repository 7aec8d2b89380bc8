package resource

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	genericvalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"petrel.dev/petrel/internal/kube"
)

// Custom describes a kind without a Go type, for Kinds.Add.
type Custom struct {
	GVK                    schema.GroupVersionKind
	Plural, Singular       string
	ShortNames, Categories []string
	Namespaced             bool
	ListKind               string // "": GVK.Kind + "List"
	// Schema describes its objects; nil: every field is kept, and none is checked.
	Schema Schema
	// Versions replaces Schema for a kind that has several versions, or whose schema is made when it is used.
	Versions Versions
	// StoredAs is the version that is stored, nil: this one. Each version decides its own requests.
	StoredAs *Kind
	// TypeConverter is that of the Kind: the merge rules of Schema, for server-side apply; nil: deduced from the objects.
	TypeConverter func() (managedfields.TypeConverter, error)
	// Status says that only the subresource of that name writes the field "status", and that it writes nothing else.
	Status bool
}

// Kind returns the declaration, with all verbs and the rules that upstream has for custom resources.
func (c Custom) Kind() *Kind {
	k := newKind(c.GVK, c.Plural, c.Singular)
	k.ShortNames, k.Categories = c.ShortNames, c.Categories
	k.shaped = c.Versions != nil || c.Schema != nil
	if c.Versions == nil {
		c.Versions = oneVersion{c.Schema}
	}
	codec := unstructuredCodec{c.GVK, c.Versions}
	k.Codec, k.Slim, k.listKind = codec, codec.slim, c.ListKind
	k.StoredAs, k.ownVersion = c.StoredAs, c.StoredAs != nil
	k.TypeConverter = c.TypeConverter
	k.New = func() kube.Object {
		u := &unstructured.Unstructured{}
		u.SetGroupVersionKind(c.GVK)
		return u
	}
	k.NewList = func() runtime.Object {
		l := &unstructured.UnstructuredList{}
		l.SetGroupVersionKind(c.GVK.GroupVersion().WithKind(k.ListKind()))
		return l
	}
	if !c.Namespaced {
		k.ClusterScoped()
	}
	k.Rules = c.rules()
	if c.Status {
		k.Subresources["status"] = &Subresource{Name: "status", GVK: c.GVK, Verbs: []string{"get", "patch", "update"}, Rules: &Rules{
			Default: c.defaults,
			ValidateUpdate: func(ctx context.Context, obj, old kube.Object) field.ErrorList {
				return c.check(ctx, func(s Schema) field.ErrorList { return s.ValidateStatus(ctx, content(obj), content(old)) })
			},
			PrepareUpdate: func(_ context.Context, obj, old kube.Object) { onlyStatus(obj, old) },
		}}
	}
	return k
}

func (c Custom) rules() Rules {
	return Rules{
		Default: c.defaults,
		PrepareCreate: func(_ context.Context, obj kube.Object) {
			obj.SetGeneration(1)
			if c.Status {
				delete(content(obj), "status")
			}
		},
		PrepareUpdate: func(_ context.Context, obj, old kube.Object) {
			now, was := content(obj), content(old)
			if c.Status {
				keep("status", now, was)
			}
			if !equality.Semantic.DeepEqual(besidesMetadata(now), besidesMetadata(was)) {
				obj.SetGeneration(old.GetGeneration() + 1)
			}
		},
		ValidateCreate: func(ctx context.Context, obj kube.Object) field.ErrorList {
			errs := genericvalidation.ValidateObjectMetaAccessor(obj, c.Namespaced, genericvalidation.NameIsDNSSubdomain, field.NewPath("metadata"))
			return append(errs, c.check(ctx, func(s Schema) field.ErrorList { return s.Validate(ctx, content(obj), nil) })...)
		},
		ValidateUpdate: func(ctx context.Context, obj, old kube.Object) field.ErrorList {
			return c.check(ctx, func(s Schema) field.ErrorList { return s.Validate(ctx, content(obj), content(old)) })
		},
		WarnCreate: func(_ context.Context, obj kube.Object) []string { return finalizerWarnings(obj, nil) },
		WarnUpdate: func(_ context.Context, obj, old kube.Object) []string { return finalizerWarnings(obj, old) },
	}
}

// defaults fills in what is left out. A schema that cannot be had is what check then reports.
func (c Custom) defaults(obj kube.Object) {
	if s, err := c.Versions.Schema(context.Background(), c.GVK.Version); err == nil && s != nil {
		s.Default(content(obj))
	}
}

// check runs a check of the version's schema, if there is one.
func (c Custom) check(ctx context.Context, run func(Schema) field.ErrorList) field.ErrorList {
	s, err := c.Versions.Schema(ctx, c.GVK.Version)
	switch {
	case err != nil:
		return field.ErrorList{field.InternalError(nil, err)}
	case s == nil:
		return nil
	}
	return run(s)
}

// finalizerWarnings warns of finalizers that an object gets and whose names may be those of others.
func finalizerWarnings(obj, old kube.Object) (warnings []string) {
	var had []string
	if old != nil {
		had = old.GetFinalizers()
	}
	names := slices.Clone(obj.GetFinalizers())
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		if slices.Contains(had, name) {
			continue
		}
		for _, msg := range validation.IsQualifiedName(name) {
			warnings = append(warnings, fmt.Sprintf("metadata.finalizers: %q: %s", name, msg))
		}
		if strings.Contains(name, "/") || slices.Contains(standardFinalizers, name) {
			continue
		}
		path := ""
		if strings.Contains(name, ".") {
			path = " including a path (/)"
		}
		warnings = append(warnings, fmt.Sprintf("metadata.finalizers: %q: prefer a domain-qualified finalizer name%s to avoid accidental conflicts with other finalizer writers", name, path))
	}
	return warnings
}

var standardFinalizers = []string{metav1.FinalizerOrphanDependents, metav1.FinalizerDeleteDependents, string(corev1.FinalizerKubernetes)}

// content returns the object's fields. Rules of a custom kind are called only with objects of its codec.
func content(obj kube.Object) map[string]any { return obj.(*unstructured.Unstructured).Object }

// keep restores a field of now.
func keep(name string, now, was map[string]any) {
	if v, ok := was[name]; ok {
		now[name] = runtime.DeepCopyJSONValue(v)
	} else {
		delete(now, name)
	}
}

// onlyStatus restores all of obj but its status, and who manages which field.
func onlyStatus(obj, old kube.Object) {
	now, was, managed := content(obj), content(old), obj.GetManagedFields()
	for field := range now {
		if _, ok := was[field]; !ok && field != "status" {
			delete(now, field)
		}
	}
	for field := range was {
		if field != "status" {
			keep(field, now, was)
		}
	}
	obj.SetManagedFields(managed)
}

// besidesMetadata returns the fields whose changes raise the generation.
func besidesMetadata(obj map[string]any) map[string]any {
	out := make(map[string]any, len(obj))
	for name, v := range obj {
		if name != "metadata" {
			out[name] = v
		}
	}
	return out
}
