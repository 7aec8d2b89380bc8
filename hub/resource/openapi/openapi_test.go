package openapi

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"runtime"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"petrel.dev/petrel/hub/resource"
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
	d := New(resource.New())
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
	table := resource.New()
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
		at(t, unpack(t, packed), "components", "schemas", definition(k.GVK))
	}
}

// The documents follow the table.
func TestRebuiltWhenKindsChange(t *testing.T) {
	table := resource.New()
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

// What is kept must be a small part of the hub's 25 MiB.
func TestKeepsLittle(t *testing.T) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	d := New(resource.New())
	if _, err := d.GroupVersions(); err != nil {
		t.Fatal(err)
	}
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
