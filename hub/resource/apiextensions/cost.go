package apiextensions

import (
	"fmt"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// What the schemas of one definition may have beside the bounds that Kubernetes has. A compiled rule takes some 60 KB, a compiled regular
// expression up to 400 times its text, and each object of the kind is matched with it.
const (
	maxRules    = 1000
	maxPatterns = 64 << 10 // bytes of all
)

// costs adds up what a schema needs once it is compiled.
type costs struct{ rules, patterns int }

// tooCostly returns what is wrong with the schemas of a definition: more than a hub can hold compiled.
func tooCostly(crd *apiextensions.CustomResourceDefinition) (errs field.ErrorList) {
	var c costs
	c.add(crd.Spec.Validation)
	for i := range crd.Spec.Versions {
		c.add(crd.Spec.Versions[i].Schema)
	}
	path := field.NewPath("spec", "versions")
	if c.rules > maxRules {
		errs = append(errs, field.Forbidden(path, fmt.Sprintf("all schemas together may have %d x-kubernetes-validations rules, and have %d", maxRules, c.rules)))
	}
	if c.patterns > maxPatterns {
		errs = append(errs, field.Forbidden(path, fmt.Sprintf("the patterns of all schemas together may have %d bytes, and have %d", maxPatterns, c.patterns)))
	}
	return errs
}

// validateCosts is tooCostly for an update: what is stored already may stay.
func validateCosts(crd, old *apiextensions.CustomResourceDefinition) field.ErrorList {
	if errs := tooCostly(crd); len(errs) > 0 && len(tooCostly(old)) == 0 {
		return errs
	}
	return nil
}

func (c *costs) add(v *apiextensions.CustomResourceValidation) {
	if v != nil {
		c.schema(v.OpenAPIV3Schema)
	}
}

func (c *costs) schema(s *apiextensions.JSONSchemaProps) {
	if s == nil {
		return
	}
	c.rules += len(s.XValidations)
	c.patterns += len(s.Pattern)
	for _, of := range []map[string]apiextensions.JSONSchemaProps{s.Properties, s.PatternProperties, s.Definitions} {
		for name, p := range of {
			if _, regular := s.PatternProperties[name]; regular {
				c.patterns += len(name)
			}
			c.schema(&p)
		}
	}
	for _, of := range [][]apiextensions.JSONSchemaProps{s.AllOf, s.AnyOf, s.OneOf} {
		c.all(of)
	}
	c.schema(s.Not)
	if s.Items != nil {
		c.schema(s.Items.Schema)
		c.all(s.Items.JSONSchemas)
	}
	for _, of := range []*apiextensions.JSONSchemaPropsOrBool{s.AdditionalProperties, s.AdditionalItems} {
		if of != nil {
			c.schema(of.Schema)
		}
	}
	for _, d := range s.Dependencies {
		c.schema(d.Schema)
	}
}

func (c *costs) all(of []apiextensions.JSONSchemaProps) {
	for i := range of {
		c.schema(&of[i])
	}
}
