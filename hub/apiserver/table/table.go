// Package table gives stored objects the shapes in which kubectl shows them: rows of a Table, or their metadata alone. A list is made while
// it is written, a portion of its objects at a time, so that what is decoded of a large one is little.
package table

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"petrel.dev/petrel/hub/apiserver/media"
	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

// Convertor makes Tables of one kind's objects. It is immutable.
type Convertor struct {
	Kind    *resource.Kind
	Options metav1.TableOptions
	Shape   string // the apiVersion of the Table, and of the metadata in its rows
}

// Table renders items, all of them at once. one is the typed form of a single item, nil when there is none yet.
func (c Convertor) Table(ctx context.Context, items []json.RawMessage, one kube.Object) (*metav1.Table, error) {
	objs := make([]kube.Object, len(items))
	if one != nil {
		objs[0] = one
	} else {
		for i, item := range items {
			obj, err := c.Kind.Codec.Decode(item)
			if err != nil {
				return nil, err
			}
			objs[i] = obj
		}
	}
	t, err := c.Kind.Table(ctx, objs, &c.Options)
	if err != nil {
		return nil, err
	}
	if len(t.Rows) != len(items) {
		return nil, fmt.Errorf("table of %s has %d rows for %d objects", c.Kind.Plural, len(t.Rows), len(items))
	}
	t.TypeMeta = metav1.TypeMeta{Kind: "Table", APIVersion: c.Shape}
	if t.ListMeta = (metav1.ListMeta{}); len(objs) == 1 {
		t.ResourceVersion = objs[0].GetResourceVersion()
	}
	for i := range t.Rows {
		if t.Rows[i].Object, err = c.rowObject(items[i]); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// rowsTail ends the JSON of a Table without rows.
const rowsTail = "]}"

// List returns the Table of a list: its JSON up to the first row, and the rows' JSON. portions are the list's objects, as many as are decoded
// at a time; what the columns need is made for each.
func (c Convertor) List(ctx context.Context, portions iter.Seq2[[]json.RawMessage, error], meta metav1.ListMeta) (head []byte, rows media.Items, err error) {
	t, err := c.Table(ctx, nil, nil)
	if err != nil {
		return nil, nil, err
	}
	t.ListMeta, t.Rows = meta, []metav1.TableRow{}
	if head, err = json.Marshal(t); err != nil {
		return nil, nil, fmt.Errorf("encode the table of %s: %w", c.Kind.Plural, err)
	}
	head, ok := bytes.CutSuffix(head, []byte(rowsTail))
	if !ok {
		return nil, nil, errors.New("encode a table: its rows are not last")
	}
	c.Options.NoHeaders = true // they are in the head
	return head, func(yield func(json.RawMessage, error) bool) {
		for items, err := range portions {
			if err != nil {
				yield(nil, err)
				return
			}
			if !c.rows(ctx, items, yield) {
				return
			}
		}
	}, nil
}

// rows yields the rows of one portion. It reports whether there is to be another one.
func (c Convertor) rows(ctx context.Context, items []json.RawMessage, yield func(json.RawMessage, error) bool) bool {
	t, err := c.Table(ctx, items, nil)
	if err != nil {
		yield(nil, err)
		return false
	}
	for _, row := range t.Rows {
		b, err := json.Marshal(row)
		if err != nil {
			err = fmt.Errorf("encode a row of %s: %w", c.Kind.Plural, err)
		}
		if !yield(b, err) || err != nil {
			return false
		}
	}
	return true
}

// rowObject returns what a row has of its object.
func (c Convertor) rowObject(item json.RawMessage) (runtime.RawExtension, error) {
	switch c.Options.IncludeObject {
	case metav1.IncludeObject:
		return runtime.RawExtension{Raw: item}, nil
	case metav1.IncludeMetadata:
		p, err := Metadata(item, c.Shape)
		return runtime.RawExtension{Raw: p}, err
	}
	return runtime.RawExtension{}, nil
}

// Metadata keeps an object's metadata only, in a version of PartialObjectMetadata. The metadata is not decoded.
func Metadata(item []byte, apiVersion string) (json.RawMessage, error) {
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

// MetadataOf returns the metadata of each item.
func MetadataOf(items media.Items, apiVersion string) media.Items {
	return func(yield func(json.RawMessage, error) bool) {
		for item, err := range items {
			if err == nil {
				item, err = Metadata(item, apiVersion)
			}
			if !yield(item, err) || err != nil {
				return
			}
		}
	}
}
