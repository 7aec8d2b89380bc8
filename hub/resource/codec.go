package resource

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"reflect"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	kjson "sigs.k8s.io/json"

	"petrel.dev/petrel/internal/kube"
)

// Codec encodes and decodes one kind's objects. There are two: for kinds with a Go type in the scheme, and for kinds without one,
// which a schema describes. A codec keeps no state and is safe for concurrent use.
type Codec interface {
	// Decode reads stored JSON as an object of the kind, without the fields that the kind does not have. Data is not kept.
	Decode(data []byte) (kube.Object, error)
	// Conform gives an object that was read from a body the form that Decode returns, and names each field that it dropped as
	// the strict decoding of a body does: `unknown field "spec.x"`. The error is that of an object that has no such form.
	Conform(obj kube.Object) (unknown []error, err error)
	// Encode writes obj as the store keeps it: JSON with apiVersion and kind, and with an empty resourceVersion into which the
	// store inserts the revision at offset revAt. In the result the first `"resourceVersion":"` is the object's own,
	// whatever its fields hold. obj is only read; its own resourceVersion does not matter.
	Encode(obj kube.Object) (data []byte, revAt int, err error)
	// Convert returns objs, which are of the kind in any served version, in version to, in their order. Results may share
	// memory with objs.
	Convert(ctx context.Context, objs []kube.Object, to schema.GroupVersion) ([]kube.Object, error)
}

// Scheme returns the scheme with every upstream type that the API serves or takes as a body, served versions and internal ones.
func Scheme() *runtime.Scheme { return legacyscheme.Scheme }

const (
	revisionField = `"resourceVersion":"`
	revisionHole  = "?"
)

// schemeCodec is the Codec of a kind that has a Go type in the scheme.
type schemeCodec struct{ gvk schema.GroupVersionKind }

// Decode implements Codec.
func (c schemeCodec) Decode(data []byte) (kube.Object, error) {
	obj, err := c.newObject()
	if err != nil {
		return nil, err
	}
	if err := kjson.UnmarshalCaseSensitivePreserveInts(data, obj); err != nil {
		return nil, fmt.Errorf("decode %s: %w", c.gvk.Kind, err)
	}
	obj.GetObjectKind().SetGroupVersionKind(c.gvk)
	return obj, nil
}

// Conform implements Codec: a Go type has no other fields than its own.
func (schemeCodec) Conform(kube.Object) ([]error, error) { return nil, nil }

// Encode implements Codec.
func (c schemeCodec) Encode(obj kube.Object) (data []byte, revAt int, err error) {
	data, err = json.Marshal(c.withHole(obj))
	if err != nil {
		return nil, 0, fmt.Errorf("encode %T: %w", obj, err)
	}
	// Only name, namespace, uid and the like come before it, as strings, in which quotes are escaped: the first match is
	// the field itself.
	at := bytes.Index(data, []byte(revisionField+revisionHole+`"`))
	if at < 0 {
		return nil, 0, fmt.Errorf("encode %T: no metadata.resourceVersion in its JSON", obj)
	}
	at += len(revisionField)
	return append(data[:at], data[at+len(revisionHole):]...), at, nil
}

// withHole returns a shallow copy, because objects are shared with readers of the cache.
func (c schemeCodec) withHole(obj kube.Object) kube.Object {
	v := reflect.ValueOf(obj).Elem()
	copied := reflect.New(v.Type())
	copied.Elem().Set(v)
	out := copied.Interface().(kube.Object)
	out.GetObjectKind().SetGroupVersionKind(c.gvk)
	out.SetResourceVersion(revisionHole)
	return out
}

func (c schemeCodec) newObject() (kube.Object, error) {
	obj, err := legacyscheme.Scheme.New(c.gvk)
	if err != nil {
		return nil, err
	}
	o, ok := obj.(kube.Object)
	if !ok {
		return nil, fmt.Errorf("%s is not an object with metadata", c.gvk)
	}
	return o, nil
}

// Convert implements Codec, by way of the internal type, which all versions of a kind have in common.
func (c schemeCodec) Convert(_ context.Context, objs []kube.Object, to schema.GroupVersion) ([]kube.Object, error) {
	out := make([]kube.Object, len(objs))
	want := to.WithKind(c.gvk.Kind)
	for i, obj := range objs {
		have := obj.GetObjectKind().GroupVersionKind()
		if have == want {
			out[i] = obj
			continue
		}
		next, err := schemeCodec{want}.newObject()
		if err != nil {
			return nil, err
		}
		in, err := legacyscheme.Scheme.New(schema.GroupVersionKind{Group: have.Group, Version: runtime.APIVersionInternal, Kind: have.Kind})
		if err != nil {
			return nil, err
		}
		if err := legacyscheme.Scheme.Convert(obj, in, nil); err != nil {
			return nil, &conversionError{have, err}
		}
		if err := legacyscheme.Scheme.Convert(in, next, nil); err != nil {
			return nil, &conversionError{have, err}
		}
		next.GetObjectKind().SetGroupVersionKind(want)
		out[i] = next
	}
	return out, nil
}
