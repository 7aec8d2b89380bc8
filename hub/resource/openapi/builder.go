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
	info  *spec.Info
	defs  definitions // upstream's
}

func newBuilder(kinds []*resource.Kind, defs definitions) *documentBuilder {
	return &documentBuilder{
		kinds: byGroupVersion(kinds), defs: defs,
		info: &spec.Info{InfoProps: spec.InfoProps{Title: "Kubernetes", Version: "v1.36.3"}},
	}
}

// byGroupVersion returns the served ones of kinds.
func byGroupVersion(kinds []*resource.Kind) map[schema.GroupVersion][]*resource.Kind {
	out := map[schema.GroupVersion][]*resource.Kind{}
	for _, k := range kinds {
		if gv := k.GVK.GroupVersion(); !k.Unserved {
			out[gv] = append(out[gv], k)
		}
	}
	return out
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

// names returns what gives upstream's builders the name and the extensions of a definition. These list its types, in each group-version that
// has another kind than those for which leaveOut is true.
func (b *documentBuilder) names(leaveOut func(*resource.Kind) bool) func(name string) (string, spec.Extensions) {
	gvks := map[string][]schema.GroupVersionKind{}
	for gv, kinds := range b.kinds {
		if kinds = slices.DeleteFunc(slices.Clone(kinds), leaveOut); len(kinds) == 0 {
			continue
		}
		for _, d := range described(gv, kinds) {
			if !slices.Contains(gvks[d.name], d.gvk) {
				gvks[d.name] = append(gvks[d.name], d.gvk)
			}
		}
	}
	for _, l := range gvks {
		slices.SortFunc(l, func(a, b schema.GroupVersionKind) int { return strings.Compare(a.String(), b.String()) })
	}
	return func(name string) (string, spec.Extensions) {
		if len(gvks[name]) == 0 {
			return name, nil
		}
		var list []any
		for _, g := range gvks[name] {
			list = append(list, gvkValue(g))
		}
		return name, spec.Extensions{"x-kubernetes-group-version-kind": list}
	}
}

func gvkValue(g schema.GroupVersionKind) map[string]any {
	return map[string]any{"group": g.Group, "version": g.Version, "kind": g.Kind}
}

// definitions returns the names of those that a group-version's document must have.
func (b *documentBuilder) definitions(gv schema.GroupVersion) []string {
	out := []string{definition(schema.GroupVersionKind{Kind: "Status"}), patchBody}
	for _, d := range described(gv, b.kinds[gv]) {
		if !slices.Contains(out, d.name) {
			out = append(out, d.name)
		}
	}
	return out
}

// v3 makes the document of a group-version, from what it needs of the definitions.
func (b *documentBuilder) v3(gv schema.GroupVersion) (*spec3.OpenAPI, error) {
	ref := func(name string) spec.Ref {
		return spec.MustCreateRef("#/components/schemas/" + common.EscapeJsonPointer(name))
	}
	names := b.definitions(gv)
	defs, err := b.closure(ref, names)
	if err != nil {
		return nil, err
	}
	if err := addCustom(defs, b.kinds[gv], ref, false); err != nil {
		return nil, err
	}
	schemas, err := builder3.BuildOpenAPIDefinitionsForResources(&common.OpenAPIV3Config{
		Info: b.info, Definitions: defs,
		// Custom kinds of other groups are left out, as upstream does: a document does not change when they do.
		GetDefinitionName: b.names(func(k *resource.Kind) bool { return k.Unstructured() && k.GVK.GroupVersion() != gv }),
	}, names...)
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

// closure returns the definitions of those names that are upstream's, with all that they and custom kinds refer to.
func (b *documentBuilder) closure(ref common.ReferenceCallback, names []string) (map[string]common.OpenAPIDefinition, error) {
	return b.defs.closure(ref, append(slices.Clone(names), objectMeta, listMeta)...)
}

// v2 makes the document of version 2.
func (b *documentBuilder) v2() (*spec.Swagger, error) {
	var names []string
	for gv := range b.kinds {
		for _, n := range b.definitions(gv) {
			if !slices.Contains(names, n) {
				names = append(names, n)
			}
		}
	}
	slices.Sort(names)
	var failed error
	doc, err := builder.BuildOpenAPIDefinitionsForResources(&common.Config{
		Info: b.info, GetDefinitionName: b.names(func(*resource.Kind) bool { return false }),
		GetDefinitions: func(ref common.ReferenceCallback) map[string]common.OpenAPIDefinition {
			defs, err := b.closure(ref, names)
			if failed = err; err != nil {
				return nil
			}
			for _, kinds := range b.kinds {
				failed = cmp.Or(failed, addCustom(defs, kinds, ref, true))
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
