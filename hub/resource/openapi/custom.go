package openapi

import (
	"fmt"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
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
	return k.GVK.GroupVersion().WithKind(k.ListKind())
}

// customName returns "dev.example.v1.Widget", as Kubernetes names definitions of custom resources.
func customName(gvk schema.GroupVersionKind) string {
	parts := strings.Split(gvk.Group, ".")
	slices.Reverse(parts)
	return strings.Join(append(parts, gvk.Version, gvk.Kind), ".")
}

// addCustom adds the definitions of those kinds that have no Go type, for a document of version 2 or 3.
func addCustom(defs map[string]common.OpenAPIDefinition, kinds []*resource.Kind, ref common.ReferenceCallback, v2 bool) error {
	for _, k := range kinds {
		if !k.Unstructured() {
			continue
		}
		s, err := customSchema(k, ref, v2)
		if err != nil {
			return fmt.Errorf("describe %s: %w", k.GVK, err)
		}
		defs[definitionOf(k)] = common.OpenAPIDefinition{Schema: *s, Dependencies: []string{objectMeta}}
		defs[listDefinitionOf(k)] = listDefinition(k, ref)
	}
	return nil
}

// customSchema describes the objects of a kind: what every object has, and what the kind says of its fields.
func customSchema(k *resource.Kind, ref common.ReferenceCallback, v2 bool) (*spec.Schema, error) {
	if k.Describe == nil {
		s := &spec.Schema{SchemaProps: spec.SchemaProps{Type: spec.StringOrArray{"object"}}}
		addObjectFields(s, ref)
		s.AddExtension(preserveUnknown, true)
		return s, nil
	}
	s, err := k.Describe(v2)
	switch {
	case err != nil && !apierrors.IsNotFound(err):
		return nil, err
	case s == nil || err != nil:
		// Of a definition that has just been deleted the kind is about to go, and this document with it. With any property, clients
		// would refuse all others.
		return &spec.Schema{SchemaProps: spec.SchemaProps{Type: spec.StringOrArray{"object"}}}, nil
	}
	addObjectFields(s, ref)
	addEmbedded(s, ref, v2)
	return s, nil
}

const preserveUnknown = "x-kubernetes-preserve-unknown-fields"

// addObjectFields adds apiVersion, kind and metadata.
func addObjectFields(s *spec.Schema, ref common.ReferenceCallback) {
	about := metav1.TypeMeta{}.SwaggerDoc()
	s.SetProperty("apiVersion", *spec.StringProperty().WithDescription(about["apiVersion"]))
	s.SetProperty("kind", *spec.StringProperty().WithDescription(about["kind"]))
	s.SetProperty("metadata", spec.Schema{SchemaProps: spec.SchemaProps{
		Ref: ref(objectMeta), Description: "Standard object's metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata",
	}})
}

// addEmbedded adds the fields of every object where whole objects are embedded.
func addEmbedded(s *spec.Schema, ref common.ReferenceCallback, v2 bool) {
	for name, p := range s.Properties {
		if name != "metadata" || p.Ref.String() == "" {
			addEmbedded(&p, ref, v2)
			s.Properties[name] = p
		}
	}
	if s.Items != nil && s.Items.Schema != nil {
		addEmbedded(s.Items.Schema, ref, v2)
	}
	if s.AdditionalProperties != nil && s.AdditionalProperties.Schema != nil {
		addEmbedded(s.AdditionalProperties.Schema, ref, v2)
	}
	if keeps, _ := s.Extensions.GetBool(preserveUnknown); keeps && v2 {
		return // clients would refuse the unknown fields
	}
	if embedded, _ := s.Extensions.GetBool("x-kubernetes-embedded-resource"); embedded {
		addObjectFields(s, ref)
		for _, name := range []string{"kind", "apiVersion"} {
			if !slices.Contains(s.Required, name) {
				s.Required = append(s.Required, name)
			}
		}
	}
}

// listDefinition describes a list of a kind's objects.
func listDefinition(k *resource.Kind, ref common.ReferenceCallback) common.OpenAPIDefinition {
	about := metav1.TypeMeta{}.SwaggerDoc()
	items := spec.ArrayProperty(&spec.Schema{SchemaProps: spec.SchemaProps{Ref: ref(definitionOf(k))}}).
		WithDescription("List of " + k.Plural + ". More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md")
	return common.OpenAPIDefinition{Dependencies: []string{definitionOf(k), listMeta}, Schema: spec.Schema{SchemaProps: spec.SchemaProps{
		Type:        spec.StringOrArray{"object"},
		Description: k.ListKind() + " is a list of " + k.GVK.Kind,
		Required:    []string{"items"},
		Properties: map[string]spec.Schema{
			"apiVersion": *spec.StringProperty().WithDescription(about["apiVersion"]),
			"kind":       *spec.StringProperty().WithDescription(about["kind"]),
			"metadata":   {SchemaProps: spec.SchemaProps{Ref: ref(listMeta)}},
			"items":      *items,
		},
	}}}
}
