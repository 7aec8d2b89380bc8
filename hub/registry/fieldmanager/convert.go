package fieldmanager

import (
	"context"
	"errors"
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"petrel.dev/petrel/internal/kube"
)

// converter is a runtime.ObjectConvertor by the codecs of the served kinds. An object of a type that is no served kind, such as a Scale,
// has one version.
type converter struct {
	ctx   context.Context // of the request that the conversion is for
	kinds Kinds
}

// ConvertToVersion implements runtime.ObjectConvertor. A version that the object's kind is not served in is not registered: entries of
// managedFields that name one are dropped.
func (c converter) ConvertToVersion(in runtime.Object, target runtime.GroupVersioner) (runtime.Object, error) {
	have := in.GetObjectKind().GroupVersionKind()
	to, ok := target.(schema.GroupVersion)
	if !ok {
		return nil, fmt.Errorf("convert %s: %v is no version", have, target)
	}
	from, served := c.kinds.Lookup(have)
	if !served {
		return c.single(in, have)
	}
	obj, ok := in.(kube.Object)
	if !ok {
		return nil, fmt.Errorf("convert %T: it is no object", in)
	}
	if u, ok := in.(*unstructured.Unstructured); ok && !from.Unstructured() {
		obj = from.New()
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, obj); err != nil {
			return nil, err
		}
	}
	want := to.WithKind(have.Kind)
	if have == want {
		return obj, nil
	}
	if k, ok := c.kinds.Lookup(want); !ok || k.Stored() != from.Stored() {
		return nil, runtime.NewNotRegisteredErrForKind("kinds", want)
	}
	out, err := from.Codec.Convert(c.ctx, []kube.Object{obj}, to)
	if err != nil {
		return nil, err
	}
	return out[0], nil
}

// single returns an object of a type that is no kind, in the form of its Go type.
func (c converter) single(in runtime.Object, gvk schema.GroupVersionKind) (runtime.Object, error) {
	u, ok := in.(*unstructured.Unstructured)
	if !ok {
		return in, nil
	}
	out, err := creater{c.kinds}.New(gvk)
	if err != nil {
		return nil, err
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, out); err != nil {
		return nil, err
	}
	return out, nil
}

// Convert implements runtime.ObjectConvertor; managers do not use it.
func (converter) Convert(_, _, _ any) error { return errors.New("objects are converted to a version") }

// ConvertFieldLabel implements runtime.ObjectConvertor; managers do not use it.
func (converter) ConvertFieldLabel(schema.GroupVersionKind, string, string) (string, string, error) {
	return "", "", errors.New("managed fields have no labels")
}

// creater is a runtime.ObjectCreater of served kinds and bodies of subresources.
type creater struct{ kinds Kinds }

// New implements runtime.ObjectCreater.
func (c creater) New(gvk schema.GroupVersionKind) (runtime.Object, error) {
	if k, ok := c.kinds.Lookup(gvk); ok {
		return k.New(), nil
	}
	for _, k := range c.kinds.All() {
		for _, s := range k.Subresources {
			if s.GVK == gvk && s.New != nil {
				obj := s.New()
				obj.GetObjectKind().SetGroupVersionKind(gvk)
				return obj, nil
			}
		}
	}
	return nil, runtime.NewNotRegisteredErrForKind("kinds", gvk)
}

// noDefaults is a runtime.ObjectDefaulter: the pipeline fills in defaults after the managers are known.
type noDefaults struct{}

// Default implements runtime.ObjectDefaulter.
func (noDefaults) Default(runtime.Object) {}
