package apiserver_test

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestDiscovery(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	a := h.do("GET", "/apis", "", "Accept: application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json")
	if a.code != 200 || a.header.Get("Content-Type") != "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList" || !strings.Contains(a.body, `"resource":"deployments"`) {
		t.Fatalf("%+v", a)
	}
	if b := h.do("GET", "/apis", "", "Accept: application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList", "If-None-Match: "+a.header.Get("ETag")); b.code != 304 || b.body != "" {
		t.Errorf("%+v", b)
	}
	for path, has := range map[string]string{
		"/api":          `"versions":["v1"]`,
		"/apis":         `"groupVersion":"apps/v1"`,
		"/apis/apps":    `"preferredVersion":{"groupVersion":"apps/v1","version":"v1"}`,
		"/api/v1":       `"name":"pods/log"`,
		"/apis/apps/v1": `"name":"deployments/scale","singularName":"","namespaced":true,"group":"autoscaling","version":"v1","kind":"Scale"`,
		"/":             `"/apis/apps/v1"`,
	} {
		if a := h.do("GET", path, "", "Accept: application/json"); a.code != 200 || !strings.Contains(a.body, has) {
			t.Errorf("%s: %d %s", path, a.code, a.body)
		}
	}
	_, lists, err := h.client().Discovery().ServerGroupsAndResources()
	if err != nil || len(lists) < 3 {
		t.Errorf("%d group-versions, %v", len(lists), err)
	}
}

func TestOpenAPI(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	var root struct {
		Paths map[string]struct{ ServerRelativeURL string }
	}
	if err := json.Unmarshal([]byte(h.do("GET", "/openapi/v3", "").body), &root); err != nil {
		t.Fatal(err)
	}
	for path, item := range root.Paths {
		a := h.do("GET", item.ServerRelativeURL, "")
		if a.code != 200 || !strings.Contains(a.header.Get("Cache-Control"), "immutable") {
			t.Errorf("%s: %d", path, a.code)
		}
		if tag := strings.Trim(a.header.Get("ETag"), `"`); !strings.HasSuffix(item.ServerRelativeURL, "?hash="+tag) {
			t.Errorf("%s: the document at %s has the hash %s", path, item.ServerRelativeURL, tag)
		}
		var doc struct {
			Openapi    string
			Components struct{ Schemas map[string]json.RawMessage }
		}
		if err := json.Unmarshal([]byte(a.body), &doc); err != nil || doc.Openapi != "3.0.0" || len(doc.Components.Schemas) == 0 {
			t.Errorf("%s: %v", path, err)
		}
		for _, ref := range strings.Split(a.body, `"$ref":"#/components/schemas/`)[1:] {
			name, _, _ := strings.Cut(ref, `"`)
			if doc.Components.Schemas[name] == nil {
				t.Errorf("%s refers to %s, which it does not define", path, name)
				break
			}
		}
		if b := h.do("GET", "/openapi/v3/"+path, "", "If-None-Match: "+a.header.Get("ETag")); b.code != 304 {
			t.Errorf("%s again: %d", path, b.code)
		}
	}
	if root.Paths["apis/apps/v1"].ServerRelativeURL == "" {
		t.Errorf("paths are %v", root.Paths)
	}
	// What clients use for merge keys and for "does the server validate?" is in both versions.
	doc, err := h.client().Discovery().OpenAPISchema()
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, d := range doc.GetDefinitions().GetAdditionalProperties() {
		found = found || d.GetName() == "io.k8s.api.core.v1.PodSpec"
	}
	if !found {
		t.Error("version 2 does not define PodSpec")
	}
	if a := h.do("GET", "/openapi/v2", ""); a.code != 200 || !strings.Contains(a.body, `"x-kubernetes-patch-merge-key":"name"`) || !strings.Contains(a.body, `"name":"fieldValidation"`) {
		t.Errorf("version 2 as JSON: %d", a.code)
	}
}
