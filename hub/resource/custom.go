package resource

import (
	"context"

	"k8s.io/apimachinery/pkg/api/equality"
	genericvalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"petrel.dev/petrel/internal/kube"
)

// Custom describes a kind without a Go type, for Kinds.Add.
type Custom struct {
	GVK                    schema.GroupVersionKind
	Plural, Singular       string
	ShortNames, Categories []string
	Namespaced             bool
	// Schema describes its objects; nil: every field is kept, and none is checked.
	Schema Schema
	// TypeConverter is that of the Kind: the merge rules of Schema, for server-side apply; nil: deduced from the objects.
	TypeConverter func() (managedfields.TypeConverter, error)
	// Status says that only the subresource of that name writes the field "status", and that it writes nothing else.
	Status bool
}

// Kind returns the declaration, with all verbs and the rules that upstream has for custom resources.
func (c Custom) Kind() *Kind {
	k := newKind(c.GVK, c.Plural, c.Singular)
	k.ShortNames, k.Categories = c.ShortNames, c.Categories
	k.Codec = unstructuredCodec{c.GVK, c.Schema}
	k.TypeConverter = c.TypeConverter
	k.New = func() kube.Object {
		u := &unstructured.Unstructured{}
		u.SetGroupVersionKind(c.GVK)
		return u
	}
	k.NewList = func() runtime.Object {
		l := &unstructured.UnstructuredList{}
		l.SetGroupVersionKind(c.GVK.GroupVersion().WithKind(c.GVK.Kind + "List"))
		return l
	}
	if !c.Namespaced {
		k.ClusterScoped()
	}
	k.Rules = c.rules()
	if c.Status {
		k.Subresources["status"] = &Subresource{Name: "status", GVK: c.GVK, Verbs: []string{"get", "patch", "update"}, Rules: &Rules{
			Default: c.defaults, ValidateUpdate: func(_ context.Context, obj, _ kube.Object) field.ErrorList { return c.validate(obj) },
			PrepareUpdate: func(_ context.Context, obj, old kube.Object) { keepAllBut("status", content(obj), content(old)) },
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
		ValidateCreate: func(_ context.Context, obj kube.Object) field.ErrorList {
			errs := genericvalidation.ValidateObjectMetaAccessor(obj, c.Namespaced, genericvalidation.NameIsDNSSubdomain, field.NewPath("metadata"))
			return append(errs, c.validate(obj)...)
		},
		ValidateUpdate: func(_ context.Context, obj, _ kube.Object) field.ErrorList { return c.validate(obj) },
	}
}

func (c Custom) defaults(obj kube.Object) {
	if c.Schema != nil {
		c.Schema.Default(content(obj))
	}
}

func (c Custom) validate(obj kube.Object) field.ErrorList {
	if c.Schema == nil {
		return nil
	}
	return c.Schema.Validate(content(obj))
}

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

// keepAllBut restores all fields of now but one.
func keepAllBut(name string, now, was map[string]any) {
	for field := range now {
		if _, ok := was[field]; !ok && field != name {
			delete(now, field)
		}
	}
	for field := range was {
		if field != name {
			keep(field, now, was)
		}
	}
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
