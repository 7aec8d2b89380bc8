package openapi

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"

	"github.com/klauspost/compress/zstd"
	"k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/validation/spec"
)

// definitions are upstream's generated OpenAPI definitions, as compressed JSON: in the binary the generated functions
// take 7 MB, these 0.2 MB (docs/adr/0002-binary-size.md). TestDefinitions compares the two, and writes the file with
//
//	go test ./hub/resource/openapi -run TestDefinitions -update
//
//go:embed definitions.json.zst
var definitions []byte

// allDefinitions returns the schemas of all upstream types. The result has megabytes: keep what is needed of it, not all.
func allDefinitions(ref common.ReferenceCallback) map[string]common.OpenAPIDefinition {
	defs, err := decodeDefinitions(definitions)
	if err != nil {
		panic(fmt.Sprintf("definitions.json.zst in this binary: %v", err)) // not caused by any input: the build is broken
	}
	for name, d := range defs {
		pointTo(&d.Schema, ref)
		defs[name] = d
	}
	return defs
}

// encodeDefinitions returns the form in which definitions are kept: a reference is the name of the definition.
func encodeDefinitions(generate func(common.ReferenceCallback) map[string]common.OpenAPIDefinition) ([]byte, error) {
	return json.Marshal(generate(func(name string) spec.Ref { return spec.MustCreateRef("#" + name) }))
}

func decodeDefinitions(packed []byte) (map[string]common.OpenAPIDefinition, error) {
	r, err := zstd.NewReader(bytes.NewReader(packed), zstd.WithDecoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	defer r.Close()
	var defs map[string]common.OpenAPIDefinition
	if err := json.NewDecoder(r).Decode(&defs); err != nil {
		return nil, err
	}
	for name, d := range defs {
		// The builder of version 2 expects a schema here, not its decoded JSON.
		v2, ok := d.Schema.Extensions[common.ExtensionV2Schema]
		if !ok {
			continue
		}
		text, err := json.Marshal(v2)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		var schema spec.Schema
		if err := json.Unmarshal(text, &schema); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		d.Schema.Extensions[common.ExtensionV2Schema] = schema
	}
	return defs, nil
}

// pointTo sets the references of a schema to those of the document that it becomes part of.
func pointTo(s *spec.Schema, ref common.ReferenceCallback) {
	if u := s.Ref.GetURL(); u != nil && u.Fragment != "" {
		s.Ref = ref(u.Fragment)
	}
	for name, p := range s.Properties {
		pointTo(&p, ref)
		s.Properties[name] = p
	}
	for _, list := range [][]spec.Schema{s.AllOf, s.AnyOf, s.OneOf} {
		for i := range list {
			pointTo(&list[i], ref)
		}
	}
	if s.Items != nil {
		if s.Items.Schema != nil {
			pointTo(s.Items.Schema, ref)
		}
		for i := range s.Items.Schemas {
			pointTo(&s.Items.Schemas[i], ref)
		}
	}
	if s.AdditionalProperties != nil && s.AdditionalProperties.Schema != nil {
		pointTo(s.AdditionalProperties.Schema, ref)
	}
	if s.Not != nil {
		pointTo(s.Not, ref)
	}
}
