package openapi

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/hub/resource/builtin"
)

// TestTags checks that the hash of a document that clients see before it is built is that of the document: otherwise a client would keep one of
// an earlier version.
func TestTags(t *testing.T) {
	kinds := builtin.New()
	gvk := schema.GroupVersionKind{Group: "example.dev", Version: "v1", Kind: "Widget"}
	if err := kinds.Add(resource.Custom{GVK: gvk, Plural: "widgets", Singular: "widget"}.Kind()); err != nil {
		t.Fatal(err)
	}
	d := New(kinds)
	promised, err := d.GroupVersions()
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for gv, doc := range maps.Clone(d.v3) {
		_, tag, ok, err := d.V3(gv, false)
		if err != nil || !ok {
			t.Fatal(ok, err)
		}
		path := root(gv)[1:]
		if promised[path] != tag && !*renew {
			t.Errorf("%s: the hash was %s, and is %s; renew tags.txt with: go test ./hub/resource/openapi -run TestTags -update", path, promised[path], tag)
		}
		if gv == gvk.GroupVersion() {
			continue // others know nothing of it
		}
		if doc.packed != nil && !*renew {
			t.Errorf("%s: the hash is not in tags.txt; renew it with: go test ./hub/resource/openapi -run TestTags -update", path)
		}
		lines = append(lines, fmt.Sprintf("%s %s %s\n", path, tag, namesOf(doc.kinds)))
	}
	if *renew {
		slices.Sort(lines)
		if err := os.WriteFile("tags.txt", []byte(strings.Join(lines, "")), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
