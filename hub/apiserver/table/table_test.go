package table

import (
	"bytes"
	"encoding/json"
	"fmt"
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
		{portionItems + 1, 10, metav1.TableOptions{IncludeObject: metav1.IncludeMetadata}},
		{3, portionBytes / 2, metav1.TableOptions{IncludeObject: metav1.IncludeObject}},
		{2, 10, metav1.TableOptions{IncludeObject: metav1.IncludeNone, NoHeaders: true}},
	} {
		convertor, items := Convertor{Kind: kind(t, "configmaps"), Options: c.options}, objects(c.n, c.size)
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
		head, rows, err := convertor.List(t.Context(), items, meta)
		if err != nil {
			t.Fatal(err)
		}
		var got bytes.Buffer
		if err := media.WriteJSON(&got, head, rows); err != nil || strings.TrimSpace(got.String()) != string(want) {
			t.Errorf("%d objects of %d bytes: %v, %d bytes, want %d", c.n, c.size, err, got.Len(), len(want))
		}
	}
}

// TestPortions checks that a portion is never empty, and bounded in number and bytes.
func TestPortions(t *testing.T) {
	for _, c := range []struct{ n, size, want int }{
		{1, 2 * portionBytes, 1}, {3, 2 * portionBytes, 1}, {5, portionBytes/2 - 200, 2}, {portionItems, 1, portionItems}, {portionItems + 1, 1, portionItems},
	} {
		if got := portion(objects(c.n, c.size)); got != c.want {
			t.Errorf("%d objects of %d bytes: %d, want %d", c.n, c.size, got, c.want)
		}
	}
}

// TestBrokenObjects checks that an object that cannot be decoded ends the rows with an error, after those before it.
func TestBrokenObjects(t *testing.T) {
	items := append(objects(portionItems, 1), json.RawMessage(`{"metadata":7}`))
	_, rows, err := Convertor{Kind: kind(t, "configmaps")}.List(t.Context(), items, metav1.ListMeta{})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, err = range rows {
		n++
	}
	if err == nil || n != portionItems+1 {
		t.Errorf("%d rows, %v", n, err)
	}
	n = 0
	for _, err = range MetadataOf([]json.RawMessage{objects(1, 1)[0], json.RawMessage(`{`), nil}) {
		n++
	}
	if err == nil || n != 2 {
		t.Errorf("metadata: %d items, %v", n, err)
	}
}
