package openapi

import (
	"maps"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/kube-openapi/pkg/validation/spec"
)

// Schema returns the schema of gvk, a type with a Go type, with everything that it refers to in place of the references; nil for a
// type without a definition. A type that contains itself ends there, as an object of any fields.
func (t *Types) Schema(gvk schema.GroupVersionKind) (*spec.Schema, error) {
	name := definition(gvk)
	if name == "" {
		return nil, nil
	}
	models, err := t.closure(name)
	if err != nil {
		return nil, err
	}
	return inlined(models, models[name], map[string]bool{name: true}), nil
}

// inlined returns a copy of s in which references are replaced by the models that they name. open are the models around s.
func inlined(models map[string]*spec.Schema, s *spec.Schema, open map[string]bool) *spec.Schema {
	out := *s
	name := referred(&out)
	if name == "" && len(out.AllOf) == 1 { // how a reference has a description and a default of its own
		name = referred(&out.AllOf[0])
	}
	if name != "" {
		if open[name] || models[name] == nil {
			return &spec.Schema{SchemaProps: spec.SchemaProps{Type: []string{"object"}}}
		}
		open = maps.Clone(open)
		open[name] = true
		out = *models[name]
	}
	if out.Properties != nil {
		properties := make(map[string]spec.Schema, len(out.Properties))
		for k, p := range out.Properties {
			properties[k] = *inlined(models, &p, open)
		}
		out.Properties = properties
	}
	if a := out.AdditionalProperties; a != nil && a.Schema != nil {
		out.AdditionalProperties = &spec.SchemaOrBool{Allows: a.Allows, Schema: inlined(models, a.Schema, open)}
	}
	if i := out.Items; i != nil && i.Schema != nil {
		out.Items = &spec.SchemaOrArray{Schema: inlined(models, i.Schema, open)}
	}
	return &out
}

// referred returns the name of the model that s refers to; "" for none.
func referred(s *spec.Schema) string {
	name, ok := strings.CutPrefix(s.Ref.String(), "#/definitions/")
	if !ok {
		return ""
	}
	return unescape(name)
}

var unescape = strings.NewReplacer("~1", "/", "~0", "~").Replace
