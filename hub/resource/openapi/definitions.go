package openapi

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
	"k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/validation/spec"
)

// packedDefinitions are upstream's generated OpenAPI definitions, as compressed text: in the binary the generated functions
// take 7 MB, these 0.2 MB (docs/adr/0002-binary-size.md). TestDefinitions compares the two, and writes the file with
//
//	go test ./hub/resource/openapi -run TestDefinitions -update
//
// The text has a line for each: its name and those that it refers to, separated by spaces, a tab, and the JSON of its schema, in which a
// reference is "#" and a name. So one can be decoded without the others.
//
//go:embed definitions.zst
var packedDefinitions []byte

// definitions are upstream's by name, 2 MB of text.
type definitions map[string]definitionText

type definitionText struct {
	needs  string // names of those that it refers to, separated by spaces
	schema []byte // JSON
}

// unpackDefinitions returns the text of each definition, to be decoded when it is needed.
func unpackDefinitions() (definitions, error) {
	r, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true))
	if err != nil {
		return nil, err
	}
	defer r.Close()
	text, err := r.DecodeAll(packedDefinitions, nil)
	if err != nil {
		return nil, err
	}
	defs := make(definitions, bytes.Count(text, []byte("\n")))
	for line := range bytes.Lines(text) {
		head, schema, ok := bytes.Cut(line, []byte("\t"))
		name, needs, _ := strings.Cut(string(head), " ")
		if !ok || strings.Contains(name, "/") { // a reference to it would be read as a path
			return nil, fmt.Errorf("definition %q is not as it must be", head)
		}
		defs[name] = definitionText{needs, schema}
	}
	return defs, nil
}

// packDefinitions returns the form in which definitions are kept.
func packDefinitions(generate func(common.ReferenceCallback) map[string]common.OpenAPIDefinition) ([]byte, error) {
	defs := generate(func(name string) spec.Ref { return spec.MustCreateRef("#" + name) })
	var text bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(defs)) {
		schema, err := json.Marshal(defs[name].Schema)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&text, "%s\t%s\n", strings.Join(append([]string{name}, defs[name].Dependencies...), " "), schema)
	}
	return text.Bytes(), nil
}

// closure returns the definitions of those names and of all that they refer to, by way of ref. Names that have none are left out: they are
// those of custom kinds.
func (defs definitions) closure(ref common.ReferenceCallback, names ...string) (map[string]common.OpenAPIDefinition, error) {
	out := map[string]common.OpenAPIDefinition{}
	for open := slices.Clone(names); len(open) > 0; {
		name := open[len(open)-1]
		open = open[:len(open)-1]
		text, ok := defs[name]
		if _, done := out[name]; done || !ok {
			continue
		}
		var d common.OpenAPIDefinition
		if text.needs != "" {
			d.Dependencies = strings.Fields(text.needs)
		}
		if err := d.Schema.UnmarshalJSON(text.schema); err != nil {
			return nil, fmt.Errorf("definition %s: %w", name, err)
		}
		if err := typeVersion2(&d.Schema); err != nil {
			return nil, fmt.Errorf("definition %s: %w", name, err)
		}
		pointTo(&d.Schema, ref)
		out[name] = d
		open = append(open, d.Dependencies...)
	}
	return out, nil
}

// typeVersion2 turns what is said of a schema in version 2 alone into a schema, as the builder of version 2 expects it.
func typeVersion2(s *spec.Schema) error {
	v2, ok := s.Extensions[common.ExtensionV2Schema]
	if !ok {
		return nil
	}
	text, err := json.Marshal(v2)
	if err != nil {
		return err
	}
	var typed spec.Schema
	if err := typed.UnmarshalJSON(text); err != nil {
		return err
	}
	s.Extensions[common.ExtensionV2Schema] = typed
	return nil
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
