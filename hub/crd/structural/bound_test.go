package structural

import (
	"encoding/json"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"petrel.dev/petrel/internal/memtest"
)

// TestGrowingExpressions checks that a rule cannot make of a small object more than memory holds.
func TestGrowingExpressions(t *testing.T) {
	for rule, text := range map[string]string{
		`self.text.replace('a', self.text).replace('a', self.text).replace('a', self.text) != ''`: "replace: the result would have more than 3145728 bytes",
		`'%.1000000000f'.format([1.0]) != ''`:                                                     "format: the result would have more than 3145728 bytes",
		`lists.range(self.text.size() * 1000000).size() > 0`:                                      "lists.range: the result would have more than 1000000 items",
	} {
		for _, where := range []map[string]any{{"rule": rule}, {"rule": "false", "messageExpression": rule + " ? 'a' : 'b'"}} {
			spec, err := json.Marshal(map[string]any{"type": "object", "properties": map[string]any{"text": map[string]any{"type": "string"}}, "x-kubernetes-validations": []any{where}})
			if err != nil {
				t.Fatal(err)
			}
			crd, err := withSchema(`{"type":"object","properties":{"spec":` + string(spec) + `}}`)
			if err != nil {
				t.Fatal(err)
			}
			s, err := Compile(crd, "v1")
			if err != nil {
				t.Fatal(err)
			}
			obj := map[string]any{"apiVersion": "example.dev/v1", "kind": "Thing", "spec": map[string]any{"text": strings.Repeat("a", 1500)}}
			var errs field.ErrorList
			n := memtest.Allocated(func() { errs = s.Validate(t.Context(), obj, nil) })
			if _, message := where["messageExpression"]; len(errs) == 0 || !message && !strings.Contains(errs.ToAggregate().Error(), text) {
				t.Errorf("%v: %v", where, errs)
			}
			if n > 64 {
				t.Errorf("%v: %d MiB were allocated", where, n)
			}
		}
	}
}
