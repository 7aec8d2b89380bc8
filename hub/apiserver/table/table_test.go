package table

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/apiserver/media"
	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/hub/resource/builtin"
)

func kind(t *testing.T, plural string) *resource.Kind {
	t.Helper()
	for _, k := range builtin.New().All() {
		if k.Plural == plural && k.GVK.Version == "v1" {
			return k
		}
	}
	t.Fatalf("no kind %s", plural)
	return nil
}

func objects(n, size int) []json.RawMessage {
	items := make([]json.RawMessage, n)
	for i := range items {
		items[i] = fmt.Appendf(nil, `{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a%d","resourceVersion":"3"},"data":{"k":%q}}`, i, strings.Repeat("<", size))
	}
	return items
}

// TestListsAreTables checks that a Table that is made a portion at a time says what the Table of all objects says.
func TestListsAreTables(t *testing.T) {
	meta := metav1.ListMeta{ResourceVersion: "9", Continue: "c"}
	for _, c := range []struct {
		n, size int
		options metav1.TableOptions
	}{
		{0, 0, metav1.TableOptions{IncludeObject: metav1.IncludeMetadata}},
		{1, 10, metav1.TableOptions{IncludeObject: metav1.IncludeObject}},
		{5, 10, metav1.TableOptions{IncludeObject: metav1.IncludeMetadata}},
		{4, 1000, metav1.TableOptions{IncludeObject: metav1.IncludeObject}},
		{2, 10, metav1.TableOptions{IncludeObject: metav1.IncludeNone, NoHeaders: true}},
	} {
		convertor, items := Convertor{Kind: kind(t, "configmaps"), Options: c.options, Shape: "meta.k8s.io/v1"}, objects(c.n, c.size)
		whole, err := convertor.Table(t.Context(), items, nil)
		if err != nil {
			t.Fatal(err)
		}
		if len(whole.Rows) != c.n || c.n > 0 && whole.Rows[0].Cells[0] != "a0" || (len(whole.ColumnDefinitions) == 0) != c.options.NoHeaders {
			t.Fatalf("%d rows, %d columns", len(whole.Rows), len(whole.ColumnDefinitions))
		}
		whole.ListMeta, whole.Rows = meta, append([]metav1.TableRow{}, whole.Rows...)
		want, err := json.Marshal(whole)
		if err != nil {
			t.Fatal(err)
		}
		head, rows, err := convertor.List(t.Context(), pairs(items, nil), meta)
		if err != nil {
			t.Fatal(err)
		}
		var got bytes.Buffer
		if err := media.WriteJSON(&got, head, rows); err != nil || strings.TrimSpace(got.String()) != string(want) {
			t.Errorf("%d objects of %d bytes: %v, %d bytes, want %d", c.n, c.size, err, got.Len(), len(want))
		}
	}
}

// TestBrokenObjects checks that an object that cannot be decoded ends the rows with an error, after those of the portions before it, and
// that an error of what makes the objects does.
func TestBrokenObjects(t *testing.T) {
	failed := errors.New("failed")
	for name, portions := range map[string]iter.Seq2[[]json.RawMessage, error]{
		"object":   pairs(append(objects(4, 1), json.RawMessage(`{"metadata":7}`)), nil),
		"portions": pairs(objects(4, 1), failed),
	} {
		_, rows, err := Convertor{Kind: kind(t, "configmaps")}.List(t.Context(), portions, metav1.ListMeta{})
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, err = range rows {
			n++
		}
		if err == nil || n != 5 {
			t.Errorf("%s: %d rows, %v", name, n, err)
		}
	}
	for name, items := range map[string]media.Items{
		"object":   media.ItemsOf(pairs([]json.RawMessage{objects(1, 1)[0], json.RawMessage(`{`), nil}, nil)),
		"portions": media.ItemsOf(pairs(objects(1, 1), failed)),
	} {
		n := 0
		var err error
		for _, err = range MetadataOf(items, "meta.k8s.io/v1") {
			n++
		}
		if err == nil || n != 2 {
			t.Errorf("metadata of %s: %d items, %v", name, n, err)
		}
	}
}

// pairs returns items two at a time, and then an error where there is one.
func pairs(items []json.RawMessage, err error) iter.Seq2[[]json.RawMessage, error] {
	return func(yield func([]json.RawMessage, error) bool) {
		for pair := range slices.Chunk(items, 2) {
			if !yield(pair, nil) {
				return
			}
		}
		if err != nil {
			yield(nil, err)
		}
	}
}

// TestScale is the Table of a Scale, and refuses what is none.
func TestScale(t *testing.T) {
	c := Convertor{Shape: "meta.k8s.io/v1"}
	table, err := c.Scale([]byte(`{"kind":"Scale","apiVersion":"autoscaling/v1","metadata":{"name":"a"},"spec":{"replicas":2},"status":{"replicas":1}}`))
	if err != nil || len(table.Rows) != 1 || table.APIVersion != c.Shape {
		t.Fatalf("%v: %+v", err, table)
	}
	if cells := fmt.Sprint(table.Rows[0].Cells); cells != "[a 2 1 <unknown>]" {
		t.Error(cells)
	}
	if _, err := c.Scale([]byte(`{"kind":"Eviction","apiVersion":"policy/v1"}`)); err == nil {
		t.Error("an Eviction has a Table")
	}
}
