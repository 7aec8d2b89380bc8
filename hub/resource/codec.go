package resource

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	kjson "sigs.k8s.io/json"

	"petrel.dev/petrel/internal/kube"
)

// Scheme knows every type that the API serves or takes as a body, served versions and internal ones.
func Scheme() *runtime.Scheme { return legacyscheme.Scheme }

// Decode reads stored JSON as an object of the kind. Unknown fields are dropped. Data is not kept.
func Decode(gvk schema.GroupVersionKind, data []byte) (kube.Object, error) {
	obj, err := newObject(gvk)
	if err != nil {
		return nil, err
	}
	if err := kjson.UnmarshalCaseSensitivePreserveInts(data, obj); err != nil {
		return nil, fmt.Errorf("decode %s: %w", gvk.Kind, err)
	}
	obj.GetObjectKind().SetGroupVersionKind(gvk)
	return obj, nil
}

const (
	revisionField = `"resourceVersion":"`
	revisionHole  = "?"
)

// Encode writes obj as the store keeps it: JSON with apiVersion and kind, and with an empty resourceVersion into which
// the store inserts the revision at offset revAt. obj is only read; its own resourceVersion does not matter.
func Encode(obj kube.Object) (data []byte, revAt int, err error) {
	data, err = json.Marshal(withHole(obj))
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
func withHole(obj kube.Object) kube.Object {
	v := reflect.ValueOf(obj).Elem()
	copied := reflect.New(v.Type())
	copied.Elem().Set(v)
	out := copied.Interface().(kube.Object)
	if gvk := out.GetObjectKind().GroupVersionKind(); gvk.Kind == "" || gvk.Version == "" {
		if gvks, _, err := legacyscheme.Scheme.ObjectKinds(out); err == nil {
			out.GetObjectKind().SetGroupVersionKind(gvks[0])
		}
	}
	out.SetResourceVersion(revisionHole)
	return out
}

func newObject(gvk schema.GroupVersionKind) (kube.Object, error) {
	obj, err := legacyscheme.Scheme.New(gvk)
	if err != nil {
		return nil, err
	}
	o, ok := obj.(kube.Object)
	if !ok {
		return nil, fmt.Errorf("%s is not an object with metadata", gvk)
	}
	return o, nil
}
