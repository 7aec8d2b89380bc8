package apiserver

import (
	"encoding/json"

	"petrel.dev/petrel/hub/apiserver/media"
	"petrel.dev/petrel/hub/apiserver/table"
	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/internal/kube"
)

// transform gives one object another shape.
func (x *exchange) transform(out media.Form, res *registry.Result) ([]byte, error) {
	if out.As != "Table" {
		return table.Metadata(res.JSON, out.Shape)
	}
	if x.sub != nil && x.sub.New != nil {
		t, err := x.tables(out).Scale(res.JSON)
		if err != nil {
			return nil, err
		}
		return json.Marshal(t)
	}
	var obj kube.Object
	if o, ok := res.Object.(kube.Object); ok && o.GetObjectKind().GroupVersionKind() == x.t.Kind.GVK {
		obj = o
	}
	t, err := x.tables(out).Table(x.ctx, []json.RawMessage{res.JSON}, obj)
	if err != nil {
		return nil, err
	}
	return json.Marshal(t)
}

// tables makes Tables of the objects that x is about.
func (x *exchange) tables(out media.Form) table.Convertor {
	return table.Convertor{Kind: x.t.Kind, Options: out.Table, Shape: out.Shape}
}
