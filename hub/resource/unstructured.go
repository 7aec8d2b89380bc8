package resource

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	kjson "sigs.k8s.io/json"

	"petrel.dev/petrel/internal/kube"
)

// Schema describes the fields of objects of a kind without a Go type, apart from apiVersion, kind and metadata. obj is the whole object
// in the form of decoded JSON. Implementations keep no state and do not keep obj.
type Schema interface {
	// Prune removes the fields that the kind does not have, and returns the path of each: "spec.x".
	Prune(obj map[string]any) (paths []string)
	// Default fills in what is left out.
	Default(obj map[string]any)
	// Validate returns what is wrong with an object that has been pruned and defaulted.
	Validate(obj map[string]any) field.ErrorList
}

// unstructuredCodec is the Codec of a kind without a Go type: its objects are *unstructured.Unstructured.
type unstructuredCodec struct {
	gvk    schema.GroupVersionKind
	schema Schema // nil: every field is kept
}

// Decode implements Codec.
func (c unstructuredCodec) Decode(data []byte) (kube.Object, error) {
	u := &unstructured.Unstructured{}
	if err := kjson.UnmarshalCaseSensitivePreserveInts(data, &u.Object); err != nil {
		return nil, fmt.Errorf("decode %s: %w", c.gvk.Kind, err)
	}
	if u.Object == nil {
		return nil, fmt.Errorf("decode %s: null is no object", c.gvk.Kind)
	}
	// Only the schema may have changed since it was written.
	if c.schema != nil {
		c.schema.Prune(u.Object)
	}
	u.SetGroupVersionKind(c.gvk)
	return u, nil
}

// Conform implements Codec. Metadata has the same fields in every kind, so it goes through its Go type: what comes out has
// the types that its readers and Encode rely on.
func (c unstructuredCodec) Conform(obj kube.Object) (unknown []error, err error) {
	u, ok := obj.(*unstructured.Unstructured)
	if !ok {
		return nil, fmt.Errorf("%T is no %s", obj, c.gvk.Kind)
	}
	if u.Object == nil {
		u.Object = map[string]any{}
	}
	if c.schema != nil {
		for _, path := range c.schema.Prune(u.Object) {
			unknown = append(unknown, fmt.Errorf("unknown field %q", path))
		}
	}
	raw, err := json.Marshal(map[string]any{"metadata": u.Object["metadata"]})
	if err != nil {
		return nil, err
	}
	var meta struct {
		Metadata metav1.ObjectMeta `json:"metadata"`
	}
	strict, err := kjson.UnmarshalStrict(raw, &meta)
	if err != nil {
		return nil, err
	}
	fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&meta.Metadata)
	if err != nil {
		return nil, err
	}
	if fields["creationTimestamp"] == nil {
		delete(fields, "creationTimestamp")
	}
	u.Object["metadata"] = fields
	return append(unknown, strict...), nil
}

// Encode implements Codec. Fields of the user may come before metadata in the order of names, and hold anything, so the JSON is put
// together with the resourceVersion before all of it.
func (c unstructuredCodec) Encode(obj kube.Object) (data []byte, revAt int, err error) {
	u, ok := obj.(*unstructured.Unstructured)
	if !ok {
		return nil, 0, fmt.Errorf("encode %T: it is no %s", obj, c.gvk.Kind)
	}
	meta, ok := u.Object["metadata"].(map[string]any)
	if !ok {
		return nil, 0, errors.New("encode " + c.gvk.Kind + ": it has no metadata")
	}
	meta, rest := maps.Clone(meta), maps.Clone(u.Object)
	delete(meta, "resourceVersion")
	for _, name := range []string{"apiVersion", "kind", "metadata"} {
		delete(rest, name)
	}
	head, err := json.Marshal(metav1.TypeMeta{APIVersion: c.gvk.GroupVersion().String(), Kind: c.gvk.Kind})
	if err != nil {
		return nil, 0, fmt.Errorf("encode %s: %w", c.gvk.Kind, err)
	}
	data = append(head[:len(head)-1], `,"metadata":{`+revisionField...)
	revAt = len(data)
	data = append(data, '"')
	for _, fields := range []map[string]any{meta, rest} { // each closes the brace that is open
		text, err := json.Marshal(fields)
		if err != nil {
			return nil, 0, fmt.Errorf("encode %s: %w", c.gvk.Kind, err)
		}
		if len(fields) > 0 {
			data = append(data, ',')
		}
		data = append(data, text[1:]...)
	}
	return data, revAt, nil
}

// Convert implements Codec. Versions differ in nothing but their name.
func (c unstructuredCodec) Convert(_ context.Context, objs []kube.Object, to schema.GroupVersion) ([]kube.Object, error) {
	out := make([]kube.Object, len(objs))
	for i, obj := range objs {
		u, ok := obj.(*unstructured.Unstructured)
		if !ok {
			return nil, fmt.Errorf("convert %T: it is no %s", obj, c.gvk.Kind)
		}
		next := &unstructured.Unstructured{Object: maps.Clone(u.Object)}
		next.SetGroupVersionKind(to.WithKind(c.gvk.Kind))
		out[i] = next
	}
	return out, nil
}
