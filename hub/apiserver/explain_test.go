package apiserver_test

import (
	"bytes"
	"encoding/json"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/openapi/cached"
	"k8s.io/client-go/rest"
	explain "k8s.io/kubectl/pkg/explain/v2"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/hub/webhook"
)

// TestExplainsEverything explains every resource that discovery names as `kubectl explain --recursive` does, by kubectl's own library, and
// compares the fields, all the way down, with those of the Go type; those of a custom kind with its definition.
func TestExplainsEverything(t *testing.T) {
	t.Parallel()
	h := definitionHub(t, webhook.New(nil))
	h.define(definition(thingVersion("v1", true, `{type: object, properties: {ports: {type: array, items: {type: object, properties: {number: {type: integer}}}}}}`)))
	cfg := rest.CopyConfig(h.config)
	cfg.QPS = -1
	client := discovery.NewDiscoveryClientForConfigOrDie(cfg)
	_, lists, err := client.ServerGroupsAndResources()
	if err != nil {
		t.Fatal(err)
	}
	documents := cached.NewClient(client.OpenAPIV3())
	explained := map[schema.GroupVersionKind]bool{}
	for _, list := range lists {
		gv, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range list.APIResources {
			if strings.Contains(r.Name, "/") { // kubectl explains no subresources
				continue
			}
			gvk := gv.WithKind(r.Kind)
			explained[gvk] = true
			var text bytes.Buffer
			if err := explain.PrintModelDescription(nil, &text, documents, gv.WithResource(r.Name), true, "plaintext"); err != nil {
				t.Errorf("%s: %v", gvk, err)
				continue
			}
			got, want := explainedFields(text.String()), fieldsOf(t, gvk)
			if missing, more := without(want, got), without(got, want); len(missing)+len(more) > 0 || len(got) < 3 {
				t.Errorf("%s: %d fields, missing %q, and too many %q", gvk, len(got), missing, more)
			}
		}
	}
	for _, k := range h.kinds.All() {
		if !explained[k.GVK] {
			t.Errorf("%s is not in discovery", k.GVK)
		}
	}
}

// without returns the members of a that b has not, in order.
func without(a, b map[string]bool) []string {
	a = maps.Clone(a)
	maps.DeleteFunc(a, func(f string, _ bool) bool { return b[f] })
	return slices.Sorted(maps.Keys(a))
}

var fieldLine = regexp.MustCompile(`(?m)^((?:  )+)(\S+)\t<`)

// explainedFields returns the paths of the fields in an explanation, each of which is a line that is indented by its depth.
func explainedFields(text string) map[string]bool {
	out := map[string]bool{}
	var path []string
	for _, m := range fieldLine.FindAllStringSubmatch(text, -1) {
		path = append(path[:len(m[1])/2-1], m[2])
		out[strings.Join(path, ".")] = true
	}
	return out
}

// fieldsOf returns the paths of a kind's fields in JSON.
func fieldsOf(t *testing.T, gvk schema.GroupVersionKind) map[string]bool {
	out := map[string]bool{}
	if gvk.Group == "example.dev" {
		for _, f := range []string{"apiVersion", "kind", "metadata", "spec", "spec.ports", "spec.ports.number", "status"} {
			out[f] = true
		}
		every := fieldsOf(t, schema.GroupVersionKind{Version: "v1", Kind: "ConfigMap"})
		for f := range every {
			if strings.HasPrefix(f, "metadata.") {
				out[f] = true
			}
		}
		return out
	}
	obj, err := resource.Scheme().New(gvk)
	if err != nil {
		t.Fatal(err)
	}
	addFields(out, "", reflect.TypeOf(obj), nil)
	return out
}

// addFields adds the fields below typ, which is at prefix. What decodes itself has none, and a type inside of itself is not followed.
func addFields(out map[string]bool, prefix string, typ reflect.Type, above []reflect.Type) {
	for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice || typ.Kind() == reflect.Map {
		typ = typ.Elem()
	}
	if typ.Kind() != reflect.Struct || slices.Contains(above, typ) || len(above) > 0 && reflect.PointerTo(typ).Implements(reflect.TypeFor[json.Unmarshaler]()) {
		return
	}
	for i := range typ.NumField() {
		f := typ.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case name == "-" || !f.IsExported():
		case name == "" && (f.Anonymous || strings.Contains(options, "inline")):
			addFields(out, prefix, f.Type, append(above, typ))
		default:
			out[prefix+name] = true
			addFields(out, prefix+name+".", f.Type, append(above, typ))
		}
	}
}
