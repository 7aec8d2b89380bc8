package clientside

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

// What left the manifest leaves the object; what others set stays.
func TestThreeWay(t *testing.T) {
	gvk := schema.GroupVersionKind{Version: "v1", Kind: "ConfigMap"}
	live := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap",
		"metadata": map[string]any{"name": "c", "annotations": map[string]any{lastApplied: `{"data":{"gone":"1","kept":"1"}}`}},
		"data":     map[string]any{"gone": "1", "kept": "1", "foreign": "1"},
	}}
	for kind, want := range map[string]types.PatchType{"ConfigMap": types.StrategicMergePatchType, "Unheard": types.MergePatchType} {
		gvk.Kind = kind
		pt, patch, err := threeWay(gvk, live, []byte(`{"data":{"kept":"2"}}`))
		if err != nil || pt != want {
			t.Fatalf("%s: %s, %v", kind, pt, err)
		}
		text := string(patch)
		if !strings.Contains(text, `"gone":null`) || !strings.Contains(text, `"kept":"2"`) || strings.Contains(text, "foreign") {
			t.Errorf("%s: %s", kind, text)
		}
	}
}
