package apiextensions

import (
	"strings"
	"testing"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
)

// TestCostlySchemas checks that rules and patterns are counted wherever a schema can have them, and over all versions.
func TestCostlySchemas(t *testing.T) {
	rules := func(n int) *apiextensions.JSONSchemaProps {
		return &apiextensions.JSONSchemaProps{XValidations: make(apiextensions.ValidationRules, n)}
	}
	pattern := func(n int) *apiextensions.JSONSchemaProps {
		return &apiextensions.JSONSchemaProps{Pattern: strings.Repeat("a", n)}
	}
	definition := func(schemas ...*apiextensions.JSONSchemaProps) *apiextensions.CustomResourceDefinition {
		crd := &apiextensions.CustomResourceDefinition{}
		for _, s := range schemas {
			crd.Spec.Versions = append(crd.Spec.Versions, apiextensions.CustomResourceDefinitionVersion{Schema: &apiextensions.CustomResourceValidation{OpenAPIV3Schema: s}})
		}
		return crd
	}
	deep := func(s *apiextensions.JSONSchemaProps) *apiextensions.JSONSchemaProps {
		s = &apiextensions.JSONSchemaProps{Properties: map[string]apiextensions.JSONSchemaProps{"a": *s}}
		s = &apiextensions.JSONSchemaProps{Items: &apiextensions.JSONSchemaPropsOrArray{Schema: s}}
		s = &apiextensions.JSONSchemaProps{AdditionalProperties: &apiextensions.JSONSchemaPropsOrBool{Schema: s}}
		return &apiextensions.JSONSchemaProps{AnyOf: []apiextensions.JSONSchemaProps{{Not: s}}}
	}
	for name, test := range map[string]struct {
		crd  *apiextensions.CustomResourceDefinition
		says string
	}{
		"as many rules as may be":    {definition(rules(maxRules/2), deep(rules(maxRules/2))), ""},
		"one more":                   {definition(rules(maxRules/2), deep(rules(maxRules/2+1))), "x-kubernetes-validations rules"},
		"as long patterns as may be": {definition(pattern(maxPatterns/2), deep(pattern(maxPatterns/2))), ""},
		"one byte more":              {definition(pattern(maxPatterns/2), deep(pattern(maxPatterns/2+1))), "the patterns of all schemas"},
		"no schema":                  {definition(nil), ""},
	} {
		errs := tooCostly(test.crd)
		if test.says == "" && len(errs) > 0 || test.says != "" && (len(errs) != 1 || !strings.Contains(errs[0].Error(), test.says)) {
			t.Errorf("%s: %v", name, errs)
		}
	}
	many := definition(rules(maxRules + 1))
	old := &apiextensions.CustomResourceDefinition{}
	if errs := validateCosts(many, old); len(errs) == 0 {
		t.Error("an update may add rules without a bound")
	}
	if errs := validateCosts(many, many); len(errs) > 0 {
		t.Errorf("what was stored before cannot be changed: %v", errs)
	}
}
