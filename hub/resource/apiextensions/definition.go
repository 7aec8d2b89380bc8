// Package apiextensions declares CustomResourceDefinition. What becomes of one, the kinds that it defines, is in hub/crd.
package apiextensions

import (
	"context"
	"slices"
	"time"

	"k8s.io/apiextensions-apiserver/pkg/apihelpers"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/install"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	apiservervalidation "k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/cel/environment"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"petrel.dev/petrel/hub/celbound"
	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

// validationTime bounds the check of a definition, which evaluates the CEL rules of defaults.
const validationTime = 10 * time.Second

func init() { install.Install(resource.Scheme()) }

// Kinds returns the declarations.
func Kinds() []*resource.Kind { return []*resource.Kind{definitionKind()} }

func definitionKind() *resource.Kind {
	k := resource.Declare(kube.CustomResourceDefinition, "customresourcedefinitions", "customresourcedefinition")
	k.ClusterScoped()
	k.ShortNames = []string{"crd", "crds"}
	k.Categories = []string{"api-extensions"}
	k.Columns = resource.NameAndCreation
	k.Slim = func(data []byte) (kube.Object, error) {
		obj, err := k.Codec.Decode(data)
		if err != nil {
			return nil, err
		}
		return withoutSchemas(obj), nil
	}
	k.Finalizers, k.Terminating = cleanup, terminating
	k.Rules = resource.Strategy[apiextensions.CustomResourceDefinition]{
		PrepareCreate: func(crd *apiextensions.CustomResourceDefinition) {
			crd.Status = apiextensions.CustomResourceDefinitionStatus{}
			crd.Generation = 1
			addStoredVersion(crd)
		},
		PrepareUpdate: func(crd, old *apiextensions.CustomResourceDefinition) {
			crd.Status = *old.Status.DeepCopy()
			if !apiequality.Semantic.DeepEqual(old.Spec, crd.Spec) {
				crd.Generation = old.Generation + 1
			}
			addStoredVersion(crd)
		},
		ValidateCreate: func(crd *apiextensions.CustomResourceDefinition) field.ErrorList {
			ctx, cancel := context.WithTimeout(context.Background(), validationTime)
			defer cancel()
			celbound.Install()                         // the library takes the environment by itself
			if errs := tooCostly(crd); len(errs) > 0 { // before all of it is compiled
				return errs
			}
			return validation.ValidateCustomResourceDefinition(ctx, crd)
		},
		ValidateUpdate: func(crd, old *apiextensions.CustomResourceDefinition) field.ErrorList {
			ctx, cancel := context.WithTimeout(context.Background(), validationTime)
			defer cancel()
			celbound.Install() // the library takes the environment by itself
			if errs := validateCosts(crd, old); len(errs) > 0 {
				return errs
			}
			return validation.ValidateCustomResourceDefinitionUpdate(ctx, crd, old)
		},
		WarnCreate: func(_ context.Context, crd *apiextensions.CustomResourceDefinition) []string {
			return formatWarnings(unknownFormats(&crd.Spec), nil)
		},
		WarnUpdate: func(_ context.Context, crd, old *apiextensions.CustomResourceDefinition) []string {
			return formatWarnings(unknownFormats(&crd.Spec), unknownFormats(&old.Spec))
		},
		ConditionalUpdate: true,
	}.Rules()
	k.Subresources["status"] = resource.Strategy[apiextensions.CustomResourceDefinition]{
		PrepareUpdate:  func(crd, old *apiextensions.CustomResourceDefinition) { crd.Spec = *old.Spec.DeepCopy() },
		ValidateUpdate: validation.ValidateUpdateCustomResourceDefinitionStatus,
	}.Status(k)
	return k
}

// addStoredVersion records that objects may be stored in the version that is stored from now on.
func addStoredVersion(crd *apiextensions.CustomResourceDefinition) {
	for _, v := range crd.Spec.Versions {
		if v.Storage && !apiextensions.IsStoredVersion(crd, v.Name) {
			crd.Status.StoredVersions = append(crd.Status.StoredVersions, v.Name)
		}
	}
}

// cleanup returns the finalizer that stands for the objects of the defined kind: they are deleted before their definition.
func cleanup(obj kube.Object) []string {
	if slices.Contains(obj.GetFinalizers(), apiextensionsv1.CustomResourceCleanupFinalizer) {
		return []string{apiextensionsv1.CustomResourceCleanupFinalizer}
	}
	return nil
}

// terminating marks a definition whose deletion begins.
func terminating(obj kube.Object) {
	crd, ok := obj.(*apiextensionsv1.CustomResourceDefinition)
	if !ok {
		return
	}
	if len(cleanup(crd)) == 0 {
		crd.Finalizers = append(slices.Clone(crd.Finalizers), apiextensionsv1.CustomResourceCleanupFinalizer)
	}
	apihelpers.SetCRDCondition(crd, apiextensionsv1.CustomResourceDefinitionCondition{
		Type: apiextensionsv1.Terminating, Status: apiextensionsv1.ConditionTrue, Reason: "InstanceDeletionPending",
		Message: "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
	})
}

// withoutSchemas returns a definition without its schemas, which in Go take tens of times the bytes that they have as JSON.
func withoutSchemas(obj kube.Object) kube.Object {
	crd, ok := obj.(*apiextensionsv1.CustomResourceDefinition)
	if !ok {
		return obj
	}
	slim := *crd
	slim.ManagedFields = nil
	slim.Spec.Versions = slices.Clone(crd.Spec.Versions)
	for i := range slim.Spec.Versions {
		slim.Spec.Versions[i].Schema = nil
	}
	return slim.DeepCopy() // otherwise strings of the original keep the JSON that they were read from
}

// unknownFormats returns the formats in the schemas of a definition that nothing checks.
func unknownFormats(spec *apiextensions.CustomResourceDefinitionSpec) (formats []string) {
	if spec.Validation != nil && spec.Validation.OpenAPIV3Schema != nil {
		formats = append(formats, unknownFormatsIn(spec.Validation.OpenAPIV3Schema)...)
	}
	for _, v := range spec.Versions {
		if v.Schema != nil && v.Schema.OpenAPIV3Schema != nil {
			formats = append(formats, unknownFormatsIn(v.Schema.OpenAPIV3Schema)...)
		}
	}
	return formats
}

func unknownFormatsIn(schema *apiextensions.JSONSchemaProps) (formats []string) {
	validation.SchemaHas(schema, func(s *apiextensions.JSONSchemaProps) bool {
		if s.Format != "" {
			in := &spec.Schema{SchemaProps: spec.SchemaProps{Format: s.Format, Type: []string{s.Type}}}
			formats = append(formats, apiservervalidation.GetUnrecognizedFormats(in, environment.DefaultCompatibilityVersion())...)
		}
		return false // the walk goes on
	})
	return formats
}

// formatWarnings warns of formats that were not unknown before.
func formatWarnings(formats, before []string) (warnings []string) {
	for _, f := range formats {
		if !slices.Contains(before, f) {
			warnings = append(warnings, `unrecognized format "`+f+`"`)
		}
	}
	return warnings
}
