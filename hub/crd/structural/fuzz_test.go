package structural

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	kjson "sigs.k8s.io/json"
)

// withSchema returns a definition whose one version has a schema.
func withSchema(schema string) (*apiextensionsv1.CustomResourceDefinition, error) {
	crd := &apiextensionsv1.CustomResourceDefinition{Spec: apiextensionsv1.CustomResourceDefinitionSpec{
		Group: "example.dev", Scope: apiextensionsv1.NamespaceScoped, Names: apiextensionsv1.CustomResourceDefinitionNames{Kind: "Thing"},
	}}
	props := &apiextensionsv1.JSONSchemaProps{}
	if err := json.Unmarshal([]byte(schema), props); err != nil {
		return nil, err
	}
	crd.Spec.Versions = []apiextensionsv1.CustomResourceDefinitionVersion{{Name: "v1", Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: props}}}
	return crd, nil
}

const rich = `{"type":"object","x-kubernetes-validations":[{"rule":"!has(self.spec) || !has(self.spec.min) || self.spec.min < 100"}],"properties":{"spec":{"type":"object","properties":{
	"min":{"type":"integer","default":1,"minimum":0},"name":{"type":"string","nullable":true,"maxLength":9,"x-kubernetes-validations":[{"rule":"self == oldSelf","optionalOldSelf":false}]},
	"port":{"x-kubernetes-int-or-string":true},"tags":{"type":"array","x-kubernetes-list-type":"set","items":{"type":"string"}},
	"ports":{"type":"array","x-kubernetes-list-type":"map","x-kubernetes-list-map-keys":["name"],"items":{"type":"object","required":["name"],"properties":{"name":{"type":"string"}}}},
	"more":{"type":"object","additionalProperties":{"type":"array","items":{"type":"number"}}},"free":{"x-kubernetes-preserve-unknown-fields":true},
	"pod":{"type":"object","x-kubernetes-embedded-resource":true,"x-kubernetes-preserve-unknown-fields":true}}}}}`

// Whatever a client sends is refused or accepted, by no panic and in bounded time.
func FuzzObject(f *testing.F) {
	for _, seed := range []string{
		`{"apiVersion":"example.dev/v1","kind":"Thing","spec":{"min":5,"name":"a","port":"x","tags":["a"],"ports":[{"name":"b"}],"more":{"a":[1.5]},"pod":{"apiVersion":"v1","kind":"Pod","metadata":{"name":"x"}}}}`,
		`{"spec":null}`, `{"spec":{"tags":[null,{},[]],"ports":[1,{"name":[]},null],"pod":{"metadata":7}}}`, `{"spec":{"port":1e400,"min":-0}}`, `{"spec":[{}]}`,
		`{"spec":{"free":{"a":[[[[{}]]]]},"more":{"":null}}}`, `{"metadata":{"labels":{"a":1}},"kind":7}`,
	} {
		f.Add([]byte(seed), []byte(`{"apiVersion":"example.dev/v1","kind":"Thing","spec":{"name":"b"}}`))
	}
	crd, err := withSchema(rich)
	if err != nil {
		f.Fatal(err)
	}
	s, err := Compile(crd, "v1")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body, before []byte) {
		var obj, old map[string]any
		if kjson.UnmarshalCaseSensitivePreserveInts(body, &obj) != nil || kjson.UnmarshalCaseSensitivePreserveInts(before, &old) != nil || obj == nil {
			return
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if _, err := s.Prune(obj, false); err != nil {
			return
		}
		if _, err := s.Prune(old, true); err != nil {
			return
		}
		s.Default(obj)
		s.Validate(ctx, obj, nil)
		if old != nil {
			s.Validate(ctx, obj, old)
			s.ValidateStatus(ctx, obj, old)
		}
		if ctx.Err() != nil {
			t.Fatalf("%s took longer than ten seconds", body)
		}
	})
}

// Whatever a schema says, compiling it is refused or gives something that can be used.
func FuzzSchema(f *testing.F) {
	for _, seed := range []string{rich, `{}`, `{"type":"object","properties":{"a":{"$ref":"#/x"}}}`, `{"type":"array","items":[{"type":"string"}]}`,
		`{"type":"object","additionalProperties":true,"default":{"a":1}}`, `{"anyOf":[{"type":"integer"}],"not":{}}`, `{"type":"object","x-kubernetes-validations":[{"rule":"self.x("}]}`,
		`{"type":"object","properties":{"a":{"type":"string","pattern":"(["}}}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, schema []byte) {
		crd, err := withSchema(string(schema))
		if err != nil {
			return
		}
		s, err := Compile(crd, "v1")
		if err != nil {
			return
		}
		obj := map[string]any{"apiVersion": "example.dev/v1", "kind": "Thing", "a": "x", "spec": map[string]any{"min": int64(1)}}
		if _, err := s.Prune(obj, true); err == nil {
			s.Default(obj)
		}
	})
}
