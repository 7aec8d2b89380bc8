// Package structural is what a version of a CustomResourceDefinition says about its objects: which fields they have, what is filled
// in, and what is refused. The work is done by Kubernetes' own libraries, in the order in which its API server calls them:
//
//	body or stored bytes ─► Prune ─► Default ─► (admission) ─► Validate: schema, embedded objects, lists, scale, CEL
//
// Compiling takes milliseconds and up to megabytes, so the caller decides when, and how long the result is kept.
package structural

import (
	"errors"
	"fmt"
	"strings"

	"k8s.io/apiextensions-apiserver/pkg/apihelpers"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/objectmeta"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	celconfig "k8s.io/apiserver/pkg/apis/cel"

	"petrel.dev/petrel/hub/celbound"
)

// Schema is one version, ready for use. It does not change, and is safe for concurrent use.
type Schema struct {
	kind, apiVersion string
	namespaced       bool
	// preserve says that fields which the schema does not have are kept (spec.preserveUnknownFields).
	preserve bool
	fields   *structuralschema.Structural // nil: the version has no schema, which only old definitions may have
	rules    *cel.Validator               // nil: no field has a CEL rule
	whole    validation.SchemaValidator
	status   validation.SchemaValidator // nil: of the field "status" nothing is said
	scale    *apiextensionsv1.CustomResourceSubresourceScale
	// costs is what whole does beyond looking at each value once; nil: nothing.
	costs *checks
}

// Compile returns the schema of a version. The definition has been validated; it is only read.
func Compile(crd *apiextensionsv1.CustomResourceDefinition, version string) (*Schema, error) {
	validated, err := apihelpers.GetSchemaForVersion(crd, version)
	if err != nil {
		return nil, err
	}
	s := &Schema{
		kind: crd.Spec.Names.Kind, apiVersion: crd.Spec.Group + "/" + version,
		namespaced: crd.Spec.Scope == apiextensionsv1.NamespaceScoped, preserve: crd.Spec.PreserveUnknownFields,
	}
	if sub, err := apihelpers.GetSubresourcesForVersion(crd, version); err == nil && sub != nil {
		s.scale = sub.Scale.DeepCopy()
	}
	var props *apiextensions.JSONSchemaProps
	if validated != nil && validated.OpenAPIV3Schema != nil {
		// The conversion shares memory with its argument, and what is built from it refers to the result.
		in := &apiextensions.CustomResourceValidation{}
		if err := apiextensionsv1.Convert_v1_CustomResourceValidation_To_apiextensions_CustomResourceValidation(validated.DeepCopy(), in, nil); err != nil {
			return nil, fmt.Errorf("convert the schema of version %s: %w", version, err)
		}
		props = in.OpenAPIV3Schema
	}
	if err := s.structure(props); err != nil {
		return nil, fmt.Errorf("schema of version %s: %w", version, err)
	}
	if s.whole, _, err = validation.NewSchemaValidator(props); err != nil {
		return nil, fmt.Errorf("schema of version %s: %w", version, err)
	}
	s.costs = checksOf(props)
	if props != nil {
		if status, ok := props.Properties["status"]; ok {
			if s.status, _, err = validation.NewSchemaValidator(&status); err != nil {
				return nil, fmt.Errorf("schema of the status of version %s: %w", version, err)
			}
		}
	}
	return s, nil
}

// structure fills in what pruning, defaulting and CEL work with.
func (s *Schema) structure(props *apiextensions.JSONSchemaProps) error {
	if props == nil {
		return nil
	}
	fields, err := structuralschema.NewStructural(props)
	switch {
	case err != nil && s.preserve: // old definitions are served although they are not structural
		return nil
	case err != nil:
		return err
	case !s.preserve:
		fields = fields.DeepCopy() // parts of it belong to props
		if err := defaulting.PruneDefaults(fields); err != nil {
			return fmt.Errorf("prune defaults: %w", err)
		}
	}
	s.fields = fields
	celbound.Install() // the library takes the environment by itself
	s.rules = cel.NewValidator(fields, true, celconfig.PerCallLimit)
	return nil
}

// Prune removes the fields that the schema does not have, and nulls where none is allowed, and returns the paths of the fields. It
// gives embedded objects the form that their metadata has everywhere. lenient drops metadata that has no such form, as the
// bytes of an old hub might have it; otherwise it is an error.
func (s *Schema) Prune(obj map[string]any, lenient bool) (unknown []string, err error) {
	if !s.preserve {
		unknown = pruning.PruneWithOptions(obj, s.fields, true, structuralschema.UnknownFieldPathOptions{TrackUnknownFieldPaths: true})
		defaulting.PruneNonNullableNullsWithoutDefaults(obj, s.fields)
	}
	wrong, embedded := objectmeta.CoerceWithOptions(nil, obj, s.fields, false, objectmeta.CoerceOptions{DropInvalidFields: lenient, ReturnUnknownFieldPaths: true})
	if wrong != nil { // a *field.Error that is nil must not become an error
		return nil, errors.New(wrong.Error())
	}
	return append(unknown, embedded...), nil
}

// Default fills in what is left out.
func (s *Schema) Default(obj map[string]any) {
	if s.fields != nil {
		defaulting.Default(obj, s.fields)
	}
}

// Path returns the names of a path such as ".spec.replicas".
func Path(jsonPath string) []string { return strings.Split(strings.TrimPrefix(jsonPath, "."), ".") }
