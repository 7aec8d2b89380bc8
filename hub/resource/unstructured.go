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
	// Prune removes the fields that the kind does not have, and returns the path of each: "spec.x". The error is that of an
	// object in it whose metadata has no such form; lenient drops that instead, because what is stored must remain readable.
	Prune(obj map[string]any, lenient bool) (paths []string, err error)
	// Default fills in what is left out.
	Default(obj map[string]any)
	// Validate returns what is wrong with an object that has been pruned and defaulted. old is the one that it replaces, nil for
	// a new one. ctx bounds the evaluation of rules.
	Validate(ctx context.Context, obj, old map[string]any) field.ErrorList
	// ValidateStatus is Validate for an update of the subresource status.
	ValidateStatus(ctx context.Context, obj, old map[string]any) field.ErrorList
}

// Versions are what the versions of one kind without a Go type share. It is safe for concurrent use.
type Versions interface {
	// Schema returns that of a version; nil: every field is kept, and none is checked.
	Schema(ctx context.Context, version string) (Schema, error)
	// Convert returns objs, each of which is in another version than to, in version to and in their order. It owns objs.
	Convert(ctx context.Context, objs []*unstructured.Unstructured, to schema.GroupVersion) ([]*unstructured.Unstructured, error)
}

// oneVersion is the Versions of a kind with one constant schema, or none: versions differ in nothing but their name.
type oneVersion struct{ schema Schema }

// Schema implements Versions.
func (o oneVersion) Schema(context.Context, string) (Schema, error) { return o.schema, nil }

// Convert implements Versions.
func (oneVersion) Convert(_ context.Context, objs []*unstructured.Unstructured, to schema.GroupVersion) ([]*unstructured.Unstructured, error) {
	for _, u := range objs {
		u.SetAPIVersion(to.String())
	}
	return objs, nil
}

// unstructuredCodec is the Codec of a kind without a Go type: its objects are *unstructured.Unstructured.
type unstructuredCodec struct {
	gvk      schema.GroupVersionKind
	versions Versions
}

// Decode implements Codec. It leaves the object in the version in which it was written, and as it was written: the typed cache needs
// no schema. Convert makes of it what the kind shows.
func (c unstructuredCodec) Decode(data []byte) (kube.Object, error) {
	u := &unstructured.Unstructured{}
	if err := kjson.UnmarshalCaseSensitivePreserveInts(data, &u.Object); err != nil {
		return nil, fmt.Errorf("decode %s: %w", c.gvk.Kind, err)
	}
	if u.Object == nil {
		return nil, fmt.Errorf("decode %s: null is no object", c.gvk.Kind)
	}
	gvk := c.gvk
	if gv := u.GroupVersionKind().GroupVersion(); gv.Group == gvk.Group && gv.Version != "" {
		gvk.Version = gv.Version
	}
	u.SetGroupVersionKind(gvk)
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
	shape, err := c.versions.Schema(context.Background(), c.gvk.Version)
	if err != nil {
		return nil, err
	}
	if shape != nil {
		paths, err := shape.Prune(u.Object, false)
		if err != nil {
			return nil, err
		}
		for _, path := range paths {
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

// Convert implements Codec. Each object first becomes what its own version makes of it today, which may be more and less than what
// was stored; then those in other versions are converted, all in one call, and lose what version to does not have.
func (c unstructuredCodec) Convert(ctx context.Context, objs []kube.Object, to schema.GroupVersion) ([]kube.Object, error) {
	out := make([]kube.Object, len(objs))
	var others []*unstructured.Unstructured
	var at []int // of others in objs
	for i, obj := range objs {
		u, ok := obj.(*unstructured.Unstructured)
		if !ok {
			return nil, fmt.Errorf("convert %T: it is no %s", obj, c.gvk.Kind)
		}
		same := u.GetAPIVersion() == to.String()
		shape, err := c.versions.Schema(ctx, u.GroupVersionKind().Version)
		switch {
		case err != nil:
			return nil, err
		case shape != nil:
			u = u.DeepCopy()
			if _, err := shape.Prune(u.Object, true); err != nil {
				return nil, err
			}
			shape.Default(u.Object)
		case !same:
			u = u.DeepCopy()
		}
		if out[i] = u; !same {
			others, at = append(others, u), append(at, i)
		}
	}
	if len(others) == 0 {
		return out, nil
	}
	converted, err := c.versions.Convert(ctx, others, to)
	if err != nil {
		return nil, err
	}
	shape, err := c.versions.Schema(ctx, to.Version)
	if err != nil {
		return nil, err
	}
	for i, u := range converted {
		if shape != nil {
			if _, err := shape.Prune(u.Object, false); err != nil {
				return nil, err
			}
		}
		out[at[i]] = u
	}
	return out, nil
}
