// Package difference shows what a change does to an object: a unified difference of its YAML, without what changes by itself, and
// without the values of Secrets.
package difference

import (
	"bytes"
	"fmt"
	"maps"
	"slices"

	"github.com/rogpeppe/go-internal/diff"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"petrel.dev/petrel/internal/cli/screen"
)

// noise are the fields that every write changes, and the copy of the manifest, in which the values of a Secret are in clear.
var noise = [][]string{
	{"metadata", "managedFields"}, {"metadata", "resourceVersion"}, {"metadata", "generation"},
	{"metadata", "annotations", corev1.LastAppliedConfigAnnotation},
}

// What stands for the values of Secrets; the two latter where they differ.
const (
	masked = "***"
	before = "*** (before)"
	after  = "*** (after)"
)

// Of returns how next differs from live, and nothing when it does not. Either may be nil: the object is created, or deleted.
func Of(name string, live, next *unstructured.Unstructured) ([]byte, error) {
	live, next = bare(live), bare(next)
	mask(live, next)
	var texts [2][]byte
	for i, o := range []*unstructured.Unstructured{live, next} {
		if o == nil {
			continue
		}
		text, err := yaml.Marshal(o.Object)
		if err != nil {
			return nil, fmt.Errorf("difference of %s: %w", name, err)
		}
		texts[i] = text
	}
	out := diff.Diff("live "+name, texts[0], "applied "+name, texts[1])
	_, out, _ = bytes.Cut(out, []byte("\n")) // "diff a b" says nothing that the next two lines do not
	return out, nil
}

// bare returns a copy without noise.
func bare(o *unstructured.Unstructured) *unstructured.Unstructured {
	if o == nil {
		return nil
	}
	o = o.DeepCopy()
	for _, field := range noise {
		unstructured.RemoveNestedField(o.Object, field...)
	}
	if len(o.GetAnnotations()) == 0 {
		unstructured.RemoveNestedField(o.Object, "metadata", "annotations")
	}
	return o
}

// mask replaces the values of a Secret, so that it shows which of them change and no value.
func mask(live, next *unstructured.Unstructured) {
	for _, field := range []string{"data", "stringData"} {
		was, now := values(live, field), values(next, field)
		keys := maps.Clone(was)
		if keys == nil {
			keys = map[string]any{}
		}
		maps.Copy(keys, now)
		for key := range keys {
			old, had := was[key]
			value, has := now[key]
			switch {
			case had && has && old != value:
				was[key], now[key] = before, after
			case had && has:
				was[key], now[key] = masked, masked
			case had:
				was[key] = masked
			default:
				now[key] = masked
			}
		}
	}
}

// values returns the map of a Secret that holds values; nil of what is no Secret. What is no text is masked too.
func values(o *unstructured.Unstructured, field string) map[string]any {
	if o == nil || o.GetAPIVersion() != "v1" || o.GetKind() != "Secret" {
		return nil
	}
	m, ok := o.Object[field].(map[string]any)
	if !ok {
		if o.Object[field] != nil {
			o.Object[field] = masked
		}
		return nil
	}
	for _, key := range slices.Collect(maps.Keys(m)) {
		m[key] = fmt.Sprint(m[key]) // comparable
	}
	return m
}

// Paint colours the lines that are added and removed.
func Paint(text []byte) []byte {
	var out bytes.Buffer
	for line := range bytes.Lines(text) {
		colour := ""
		switch {
		case bytes.HasPrefix(line, []byte("+")):
			colour = screen.Green
		case bytes.HasPrefix(line, []byte("-")):
			colour = screen.Red
		case bytes.HasPrefix(line, []byte("@@")):
			colour = screen.Cyan
		}
		if colour == "" {
			out.Write(line)
			continue
		}
		out.WriteString(colour)
		out.Write(bytes.TrimSuffix(line, []byte("\n")))
		out.WriteString(screen.Plain + "\n")
	}
	return out.Bytes()
}
