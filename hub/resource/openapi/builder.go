package openapi

import (
	"cmp"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/kube-openapi/pkg/builder"
	"k8s.io/kube-openapi/pkg/builder3"
	"k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/spec3"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"petrel.dev/petrel/hub/resource"
)

// documentBuilder makes documents from upstream's definitions and the declared kinds.
type documentBuilder struct {
	kinds map[schema.GroupVersion][]*resource.Kind
	gvks  map[string][]schema.GroupVersionKind // by definition name
	info  *spec.Info
	defs3 map[string]common.OpenAPIDefinition // upstream's, referring to each other as version 3 does; megabytes; nil: not yet
}

func newBuilder(kinds []*resource.Kind) *documentBuilder {
	b := &documentBuilder{
		kinds: map[schema.GroupVersion][]*resource.Kind{},
		gvks:  map[string][]schema.GroupVersionKind{},
		info:  &spec.Info{InfoProps: spec.InfoProps{Title: "Kubernetes", Version: "v1.36.3"}},
	}
	for _, k := range kinds {
		if k.Unserved {
			continue
		}
		gv := k.GVK.GroupVersion()
		b.kinds[gv] = append(b.kinds[gv], k)
	}
	for gv, kinds := range b.kinds {
		for _, d := range described(gv, kinds) {
			if !slices.Contains(b.gvks[d.name], d.gvk) {
				b.gvks[d.name] = append(b.gvks[d.name], d.gvk)
			}
		}
	}
	for _, l := range b.gvks {
		slices.SortFunc(l, func(a, b schema.GroupVersionKind) int { return strings.Compare(a.String(), b.String()) })
	}
	return b
}

// description is a type with the name of its definition.
type description struct {
	gvk  schema.GroupVersionKind
	name string
}

// described returns the types that a group-version's document must define: its kinds, their lists, the bodies of their
// subresources, and what every verb needs.
func described(gv schema.GroupVersion, kinds []*resource.Kind) []description {
	var out []description
	add := func(gvk schema.GroupVersionKind, name string) {
		if name != "" {
			out = append(out, description{gvk, name})
		}
	}
	for _, kind := range []string{"DeleteOptions", "WatchEvent"} {
		add(gv.WithKind(kind), definition(gv.WithKind(kind)))
	}
	for _, k := range kinds {
		add(k.GVK, definitionOf(k))
		add(listGVK(k), listDefinitionOf(k))
		for _, s := range k.Subresources {
			if s.New != nil && !s.GVK.Empty() {
				add(s.GVK, definition(s.GVK))
			}
		}
	}
	return out
}

// definition returns the name of an upstream type's definition, "" when it has none.
func definition(gvk schema.GroupVersionKind) string {
	switch gvk.Kind { // registered in every group, defined once
	case "DeleteOptions", "WatchEvent", "Status":
		gvk = metav1.SchemeGroupVersion.WithKind(gvk.Kind)
		return "io.k8s.apimachinery.pkg.apis.meta.v1." + gvk.Kind
	}
	name, err := resource.Scheme().ToOpenAPIDefinitionName(gvk)
	if err != nil {
		return ""
	}
	return name
}

// name returns the name and the extensions of a definition, for upstream's builders.
func (b *documentBuilder) name(name string) (string, spec.Extensions) {
	gvks := b.gvks[name]
	if len(gvks) == 0 {
		return name, nil
	}
	var list []any
	for _, g := range gvks {
		list = append(list, gvkValue(g))
	}
	return name, spec.Extensions{"x-kubernetes-group-version-kind": list}
}

func gvkValue(g schema.GroupVersionKind) map[string]any {
	return map[string]any{"group": g.Group, "version": g.Version, "kind": g.Kind}
}

func (b *documentBuilder) names(gv schema.GroupVersion) []string {
	out := []string{definition(schema.GroupVersionKind{Kind: "Status"}), patchBody}
	for _, d := range described(gv, b.kinds[gv]) {
		if !slices.Contains(out, d.name) {
			out = append(out, d.name)
		}
	}
	return out
}

func (b *documentBuilder) v3(gv schema.GroupVersion) (*spec3.OpenAPI, error) {
	ref := func(name string) spec.Ref {
		return spec.MustCreateRef("#/components/schemas/" + common.EscapeJsonPointer(name))
	}
	if b.defs3 == nil {
		b.defs3 = allDefinitions(ref)
	}
	custom, err := addCustom(b.defs3, b.kinds[gv], ref, false)
	if err != nil {
		return nil, err
	}
	schemas, err := builder3.BuildOpenAPIDefinitionsForResources(&common.OpenAPIV3Config{
		Info: b.info, Definitions: b.defs3, GetDefinitionName: b.name,
	}, b.names(gv)...)
	for _, name := range custom { // those of all kinds at once would be megabytes
		delete(b.defs3, name)
	}
	if err != nil {
		return nil, err
	}
	doc := &spec3.OpenAPI{
		Version:    "3.0.0",
		Info:       b.info,
		Paths:      &spec3.Paths{Paths: map[string]*spec3.Path{}},
		Components: &spec3.Components{Schemas: schemas},
	}
	for _, k := range b.kinds[gv] {
		for _, p := range paths(k) {
			doc.Paths.Paths[p.path] = p.v3()
		}
	}
	return doc, nil
}

// v2 makes the document of version 2.
func (b *documentBuilder) v2() (*spec.Swagger, error) {
	var names []string
	for gv := range b.kinds {
		for _, n := range b.names(gv) {
			if !slices.Contains(names, n) {
				names = append(names, n)
			}
		}
	}
	slices.Sort(names)
	var failed error
	doc, err := builder.BuildOpenAPIDefinitionsForResources(&common.Config{
		Info: b.info, GetDefinitionName: b.name,
		GetDefinitions: func(ref common.ReferenceCallback) map[string]common.OpenAPIDefinition {
			defs := allDefinitions(ref)
			for _, kinds := range b.kinds {
				if _, err := addCustom(defs, kinds, ref, true); err != nil {
					failed = err
				}
			}
			return defs
		},
	}, names...)
	if err = cmp.Or(failed, err); err != nil {
		return nil, err
	}
	doc.Paths = &spec.Paths{Paths: map[string]spec.PathItem{}}
	for _, kinds := range b.kinds {
		for _, k := range kinds {
			for _, p := range paths(k) {
				doc.Paths.Paths[p.path] = p.v2()
			}
		}
	}
	return doc, nil
}
