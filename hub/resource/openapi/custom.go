package openapi

import (
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"petrel.dev/petrel/hub/resource"
)

// A kind without a Go type has no generated definition. It is described by what every object has: apiVersion, kind and
// metadata, and fields of its own.

const (
	objectMeta = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
	listMeta   = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta"
)

// definitionOf returns the name of the definition of a kind's objects.
func definitionOf(k *resource.Kind) string {
	if k.Unstructured() {
		return customName(k.GVK)
	}
	return definition(k.GVK)
}

// listDefinitionOf returns the name of the definition of a list of them.
func listDefinitionOf(k *resource.Kind) string {
	list := listGVK(k)
	if k.Unstructured() {
		return customName(list)
	}
	return definition(list)
}

func listGVK(k *resource.Kind) schema.GroupVersionKind {
	return k.GVK.GroupVersion().WithKind(k.GVK.Kind + "List")
}

// customName returns "dev.example.v1.Widget", as Kubernetes names definitions of custom resources.
func customName(gvk schema.GroupVersionKind) string {
	parts := strings.Split(gvk.Group, ".")
	slices.Reverse(parts)
	return strings.Join(append(parts, gvk.Version, gvk.Kind), ".")
}

// definitions returns upstream's, and those of the kinds that have no Go type.
func (b *documentBuilder) definitions(ref common.ReferenceCallback) map[string]common.OpenAPIDefinition {
	defs := allDefinitions(ref)
	for _, kinds := range b.kinds {
		for _, k := range kinds {
			if !k.Unstructured() {
				continue
			}
			defs[definitionOf(k)] = customDefinition(ref, objectMeta, nil)
			items := spec.ArrayProperty(&spec.Schema{SchemaProps: spec.SchemaProps{Ref: ref(definitionOf(k))}})
			defs[listDefinitionOf(k)] = customDefinition(ref, listMeta, items, definitionOf(k))
		}
	}
	return defs
}

// customDefinition describes an object, or a list when it has items.
func customDefinition(ref common.ReferenceCallback, meta string, items *spec.Schema, needs ...string) common.OpenAPIDefinition {
	about := metav1.TypeMeta{}.SwaggerDoc()
	s := spec.Schema{SchemaProps: spec.SchemaProps{
		Type: spec.StringOrArray{"object"},
		Properties: map[string]spec.Schema{
			"apiVersion": *spec.StringProperty().WithDescription(about["apiVersion"]),
			"kind":       *spec.StringProperty().WithDescription(about["kind"]),
			"metadata":   {SchemaProps: spec.SchemaProps{Ref: ref(meta)}},
		},
	}}
	if items != nil {
		s.Properties["items"], s.Required = *items, []string{"items"}
	} else {
		s.AddExtension("x-kubernetes-preserve-unknown-fields", true)
	}
	return common.OpenAPIDefinition{Schema: s, Dependencies: append(needs, meta)}
}
