package openapi

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"runtime"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/hub/resource/builtin"
	"petrel.dev/petrel/internal/kube"
)

func unpack(t *testing.T, packed []byte) map[string]any {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	var doc map[string]any
	if err := json.Unmarshal(raw, &doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

// at walks a document.
func at(t *testing.T, doc any, path ...string) any {
	t.Helper()
	for _, p := range path {
		m, ok := doc.(map[string]any)
		if !ok || m[p] == nil {
			t.Fatalf("no %q on the way %q", p, path)
		}
		doc = m[p]
	}
	return doc
}

func TestPathsCarryTheirKind(t *testing.T) {
	d := New(builtin.New())
	packed, tag, ok, err := d.V3(schema.GroupVersion{Group: "apps", Version: "v1"}, false)
	if err != nil || !ok || tag == "" {
		t.Fatal(ok, tag, err)
	}
	v3 := unpack(t, packed)
	packed, _, err = d.V2(false)
	if err != nil {
		t.Fatal(err)
	}
	v2 := unpack(t, packed)
	const one = "/apis/apps/v1/namespaces/{namespace}/deployments/{name}"
	for name, doc := range map[string]any{"v2": v2, "v3": v3} {
		patch := at(t, doc, "paths", one, "patch")
		if at(t, patch, "x-kubernetes-action") != "patch" || at(t, patch, "x-kubernetes-group-version-kind", "kind") != "Deployment" {
			t.Errorf("%s: %v", name, patch)
		}
		validates := false
		for _, p := range at(t, patch, "parameters").([]any) {
			if m := p.(map[string]any); m["name"] == "fieldValidation" {
				validates = true
			} else if ref, ok := m["$ref"].(string); ok && bytes.Contains([]byte(ref), []byte("fieldValidation")) {
				validates = true
			}
		}
		if !validates {
			t.Errorf("%s: a client cannot see that the server validates fields", name)
		}
		at(t, doc, "paths", "/apis/apps/v1/deployments", "get")
		at(t, doc, "paths", one+"/scale", "put")
	}
	containers := at(t, v3, "components", "schemas", "io.k8s.api.core.v1.PodSpec", "properties", "containers")
	if at(t, containers, "x-kubernetes-patch-merge-key") != "name" {
		t.Errorf("%v", containers)
	}
	gvks := at(t, v3, "components", "schemas", "io.k8s.api.apps.v1.Deployment", "x-kubernetes-group-version-kind").([]any)
	if len(gvks) != 1 || at(t, gvks[0], "group") != "apps" {
		t.Errorf("%v", gvks)
	}
}

func TestEveryKindIsDescribed(t *testing.T) {
	table := builtin.New()
	d := New(table)
	paths, err := d.GroupVersions()
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range table.All() {
		gv := k.GVK.GroupVersion()
		if paths[root(gv)[1:]] == "" {
			t.Errorf("no document for %s", gv)
			continue
		}
		packed, _, _, err := d.V3(gv, false)
		if err != nil {
			t.Fatal(err)
		}
		at(t, unpack(t, packed), "components", "schemas", definitionOf(k))
	}
}

// The documents follow the table.
func TestRebuiltWhenKindsChange(t *testing.T) {
	table := builtin.New()
	d := New(table)
	before, err := d.GroupVersions()
	if err != nil {
		t.Fatal(err)
	}
	k, ok := table.Lookup(kube.Lease)
	if !ok {
		t.Fatal("leases are not served")
	}
	table.Remove(k.GVK)
	after, err := d.GroupVersions()
	if err != nil {
		t.Fatal(err)
	}
	if before["apis/coordination.k8s.io/v1"] == "" || after["apis/coordination.k8s.io/v1"] != "" || after["api/v1"] == "" {
		t.Errorf("before %v, after %v", before, after)
	}
}

// TestKindInBuiltinGroupVersion checks that a custom kind in a group-version of built-in ones changes the document of that one alone, and that
// every hash which clients see is still that of the document.
func TestKindInBuiltinGroupVersion(t *testing.T) {
	kinds := builtin.New()
	d := New(kinds)
	before, err := d.GroupVersions()
	if err != nil {
		t.Fatal(err)
	}
	gvk := appsv1.SchemeGroupVersion.WithKind("Widget")
	if err := kinds.Add(resource.Custom{GVK: gvk, Plural: "widgets", Singular: "widget"}.Kind()); err != nil {
		t.Fatal(err)
	}
	after, err := d.GroupVersions()
	if err != nil {
		t.Fatal(err)
	}
	for gv := range maps.Clone(d.v3) {
		path := root(gv)[1:]
		if changed := before[path] != after[path]; changed != (gv == gvk.GroupVersion()) {
			t.Errorf("%s: its hash has changed: %v", gv, changed)
		}
		if _, tag, ok, err := d.V3(gv, false); err != nil || !ok || tag != after[path] {
			t.Errorf("%s: the hash was %s, and is %s (%v, %v)", gv, after[path], tag, ok, err)
		}
	}
}

// A kind without a Go type has its paths, takes no strategic merge patch, and is described by what every object has.
func TestCustomKindIsDescribed(t *testing.T) {
	kinds := builtin.New()
	gvk := schema.GroupVersionKind{Group: "example.dev", Version: "v1", Kind: "Widget"}
	if err := kinds.Add(resource.Custom{GVK: gvk, Plural: "widgets", Singular: "widget", Namespaced: true, Status: true}.Kind()); err != nil {
		t.Fatal(err)
	}
	d := New(kinds)
	packed, _, ok, err := d.V3(gvk.GroupVersion(), false)
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	v3 := unpack(t, packed)
	packed, _, err = d.V2(false)
	if err != nil {
		t.Fatal(err)
	}
	v2 := unpack(t, packed)
	const one = "/apis/example.dev/v1/namespaces/{namespace}/widgets/{name}"
	for name, doc := range map[string]struct{ doc, defs any }{"v2": {v2, at(t, v2, "definitions")}, "v3": {v3, at(t, v3, "components", "schemas")}} {
		def := at(t, doc.defs, "dev.example.v1.Widget")
		if gvks := at(t, def, "x-kubernetes-group-version-kind").([]any); len(gvks) != 1 || at(t, gvks[0], "kind") != "Widget" {
			t.Errorf("%s: %v", name, gvks)
		}
		if at(t, def, "x-kubernetes-preserve-unknown-fields") != true {
			t.Errorf("%s: %v", name, def)
		}
		at(t, def, "properties", "metadata")
		at(t, doc.defs, "dev.example.v1.WidgetList", "properties", "items")
		at(t, doc.defs, "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta")
		at(t, doc.doc, "paths", one+"/status", "put")
		at(t, doc.doc, "paths", "/apis/example.dev/v1/widgets", "get")
	}
	patches := at(t, v3, "paths", one, "patch", "requestBody", "content").(map[string]any)
	if patches["application/merge-patch+json"] == nil || patches["application/strategic-merge-patch+json"] != nil || patches["application/apply-patch+yaml"] == nil {
		t.Errorf("patches: %v", patches)
	}
	if _, _, _, err := d.V3(gvk.GroupVersion(), true); err != nil {
		t.Errorf("as protobuf: %v", err)
	}
	if _, _, err := d.V2(true); err != nil {
		t.Errorf("version 2 as protobuf: %v", err)
	}
}

// A definition that is deleted while the documents are built is described no more, and takes the documents of nobody else with it. What
// else fails is an error.
func TestKindThatIsGoing(t *testing.T) {
	kinds := builtin.New()
	gone := resource.Custom{GVK: schema.GroupVersionKind{Group: "example.dev", Version: "v1", Kind: "Widget"}, Plural: "widgets", Singular: "widget"}.Kind()
	failure := error(apierrors.NewNotFound(schema.GroupResource{Resource: "customresourcedefinitions"}, "widgets.example.dev"))
	gone.Describe = func(bool) (*spec.Schema, error) { return nil, failure }
	if err := kinds.Add(gone); err != nil {
		t.Fatal(err)
	}
	d := New(kinds)
	if _, _, err := d.V2(false); err != nil {
		t.Error(err)
	}
	if _, _, ok, err := d.V3(gone.GVK.GroupVersion(), false); err != nil || !ok {
		t.Errorf("%v, %v", ok, err)
	}
	failure = errors.New("the store cannot be read")
	if _, _, err := New(kinds).V2(false); err == nil || !strings.Contains(err.Error(), failure.Error()) {
		t.Errorf("another failure: %v", err)
	}
}

// What is kept must be a small part of the hub's 25 MiB.
func TestKeepsLittle(t *testing.T) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	d := New(builtin.New())
	if err := readAll(d); err != nil {
		t.Fatal(err)
	}
	if d.defs == nil || d.rest == nil {
		t.Fatal("the definitions are unpacked for each document, or never given back")
	}
	d.release()
	runtime.GC()
	runtime.GC() // what sync.Pool holds goes with the second
	runtime.ReadMemStats(&after)
	kept := int64(after.HeapAlloc) - int64(before.HeapAlloc)
	t.Logf("kept %d KiB, built with %d MiB", kept>>10, (after.TotalAlloc-before.TotalAlloc)>>20)
	if kept > 2<<20 {
		t.Errorf("%d KiB are kept", kept>>10)
	}
	runtime.KeepAlive(d)
}
