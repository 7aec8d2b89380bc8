package apiserver

import (
	"encoding/json"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"petrel.dev/petrel/hub/apiserver/media"
	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/internal/kube"
)

// transform gives one object another shape.
func (x *exchange) transform(out media.Form, res *registry.Result) ([]byte, error) {
	if out.As != "Table" {
		return partial(res.JSON, out.Shape)
	}
	var obj kube.Object
	if o, ok := res.Object.(kube.Object); ok && o.GetObjectKind().GroupVersionKind() == x.t.Kind.GVK {
		obj = o
	}
	if x.sub != nil && x.sub.New != nil {
		t, err := media.ScaleTable(out, res.JSON)
		if err != nil {
			return nil, err
		}
		if t.Rows[0].Object, err = rowObject(out, res.JSON); err != nil {
			return nil, err
		}
		return json.Marshal(t)
	}
	t, err := x.table(out, []json.RawMessage{res.JSON}, obj, metav1.ListMeta{})
	if err != nil {
		return nil, err
	}
	return json.Marshal(t)
}

// table renders items. one is the typed form of a single item, nil when there is none yet.
func (x *exchange) table(out media.Form, items []json.RawMessage, one kube.Object, lm metav1.ListMeta) (*metav1.Table, error) {
	k := x.t.Kind
	objs := make([]kube.Object, len(items))
	if one != nil {
		objs[0] = one
	} else {
		for i, item := range items {
			obj, err := k.Codec.Decode(item)
			if err != nil {
				return nil, err
			}
			objs[i] = obj
		}
	}
	t, err := k.Table(x.ctx, objs, &out.Table)
	if err != nil {
		return nil, err
	}
	if len(t.Rows) != len(items) {
		return nil, fmt.Errorf("table of %s has %d rows for %d objects", k.Plural, len(t.Rows), len(items))
	}
	t.TypeMeta = metav1.TypeMeta{Kind: out.As, APIVersion: out.Shape}
	t.ListMeta = lm
	if lm.ResourceVersion == "" && len(objs) == 1 {
		t.ResourceVersion = objs[0].GetResourceVersion()
	}
	for i := range t.Rows {
		if t.Rows[i].Object, err = rowObject(out, items[i]); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// rowObject returns what a row has of its object.
func rowObject(out media.Form, item json.RawMessage) (runtime.RawExtension, error) {
	switch out.Table.IncludeObject {
	case metav1.IncludeObject:
		return runtime.RawExtension{Raw: item}, nil
	case metav1.IncludeMetadata:
		p, err := partial(item, out.Shape)
		return runtime.RawExtension{Raw: p}, err
	}
	return runtime.RawExtension{}, nil
}

// partial keeps an object's metadata only, in a version of PartialObjectMetadata. The metadata is not decoded.
func partial(item []byte, apiVersion string) (json.RawMessage, error) {
	var o struct {
		Metadata json.RawMessage `json:"metadata"`
	}
	if err := json.Unmarshal(item, &o); err != nil {
		return nil, fmt.Errorf("decode stored object: %w", err)
	}
	if o.Metadata == nil {
		o.Metadata = json.RawMessage("{}")
	}
	b := make([]byte, 0, len(o.Metadata)+80)
	b = fmt.Appendf(b, `{"kind":"PartialObjectMetadata","apiVersion":%q,"metadata":`, apiVersion)
	return append(append(b, o.Metadata...), '}'), nil
}
