package crd

import (
	"context"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	openapiv2 "k8s.io/apiextensions-apiserver/pkg/controller/openapi/v2"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/kube-openapi/pkg/validation/spec"
)

// Models makes the merge rules of custom kinds; *openapi.Types does.
type Models interface {
	// Custom returns those of a kind whose fields s describes; it takes s over. nil: nothing is known of them. preserve says that
	// fields which s does not have are kept.
	Custom(gvk schema.GroupVersionKind, s *spec.Schema, preserve bool) (managedfields.TypeConverter, error)
}

// describe returns what makes the OpenAPI schema of a version. It is made for each document anew, because few are.
func (d *definition) describe(version string) func(v2 bool) (*spec.Schema, error) {
	return func(v2 bool) (*spec.Schema, error) {
		crd, err := d.schemas.read(context.Background(), d.name)
		if err != nil {
			return nil, err
		}
		return describe(crd, version, v2)
	}
}

// describe returns the OpenAPI schema of a version; nil when there is none, or (version 2) when clients that look at it would refuse
// fields which the hub takes. crd has its schemas, and is only read.
func describe(crd *apiextensionsv1.CustomResourceDefinition, version string, v2 bool) (*spec.Schema, error) {
	for _, v := range crd.Spec.Versions {
		if v.Name != version || v.Schema == nil || v.Schema.OpenAPIV3Schema == nil {
			continue
		}
		in := &apiextensions.CustomResourceValidation{}
		if err := apiextensionsv1.Convert_v1_CustomResourceValidation_To_apiextensions_CustomResourceValidation(v.Schema.DeepCopy(), in, nil); err != nil {
			return nil, err
		}
		s, err := structuralschema.NewStructural(in.OpenAPIV3Schema)
		if err != nil || len(structuralschema.ValidateStructural(nil, s)) > 0 {
			return nil, nil
		}
		if v2 && (s.XPreserveUnknownFields || crd.Spec.PreserveUnknownFields) {
			return nil, nil
		}
		if s = s.Unfold(); v2 {
			s = openapiv2.ToStructuralOpenAPIV2(s)
		}
		return s.ToKubeOpenAPI(), nil
	}
	return nil, nil
}

// typeConverter returns the merge rules of a version, for server-side apply.
func (d *definition) typeConverter(cfg Config, gvk schema.GroupVersionKind) (managedfields.TypeConverter, error) {
	crd, err := cfg.Read.definition(context.Background(), d.name)
	if err != nil {
		return nil, err
	}
	s, err := describe(crd, gvk.Version, false)
	if err != nil {
		return nil, err
	}
	return cfg.Meta.Custom(gvk, s, crd.Spec.PreserveUnknownFields)
}
