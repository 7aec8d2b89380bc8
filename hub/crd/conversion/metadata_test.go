package conversion

import (
	"encoding/json"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// TestLargeAnswers checks that an object of a webhook which would take more memory than any body may, or is nested too deep, is refused before
// it is decoded.
func TestLargeAnswers(t *testing.T) {
	original := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "example.dev/v1", "kind": "Thing", "metadata": map[string]any{"name": "a"}}}
	answer := func(spec string) json.RawMessage {
		return json.RawMessage(`{"apiVersion":"example.dev/v2","kind":"Thing","metadata":{"name":"a"},"spec":` + spec + `}`)
	}
	to := schema.GroupVersion{Group: "example.dev", Version: "v2"}
	for name, test := range map[string]struct{ spec, says string }{
		"usual": {`{"a":1}`, ""},
		"bomb":  {"[" + strings.Repeat(`{"":0},`, 500_000) + "0]", "bytes of memory"},
		"deep":  {strings.Repeat("[", 5000) + strings.Repeat("]", 5000), "nested more than 1000 deep"},
	} {
		if _, err := converted(answer(test.spec), original, to); (err != nil) != (test.says != "") || err != nil && !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
