package openapi

import (
	"runtime"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	apiruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"petrel.dev/petrel/hub/resource/builtin"
	"petrel.dev/petrel/internal/kube"
)

// Every stored kind, and every body that is applied in its place, has a description that accepts an empty object of it and refuses a
// field that it does not have.
func TestTypesOfEveryKind(t *testing.T) {
	var types Types
	describe := func(gvk schema.GroupVersionKind) {
		c, err := types.TypeConverter(gvk)
		if err != nil {
			t.Errorf("%s: %v", gvk, err)
			return
		}
		u := &unstructured.Unstructured{Object: map[string]any{}}
		u.SetGroupVersionKind(gvk)
		if _, err := c.ObjectToTyped(u); err != nil {
			t.Errorf("%s: an empty object: %v", gvk, err)
		}
		u.Object["unheardOf"] = "x"
		if _, err := c.ObjectToTyped(u); err == nil || !strings.Contains(err.Error(), ".unheardOf: field not declared in schema") {
			t.Errorf("%s: an unknown field: %v", gvk, err)
		}
	}
	for _, k := range builtin.New().All() {
		if !k.Virtual() {
			describe(k.GVK)
		}
		for _, s := range k.Subresources {
			if s.Put != nil {
				describe(s.GVK)
			}
		}
	}
}

func TestTypesMergeLists(t *testing.T) {
	var types Types
	c, err := types.TypeConverter(kube.Pod)
	if err != nil {
		t.Fatal(err)
	}
	pod := func(container map[string]any) *unstructured.Unstructured {
		return &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Pod",
			"spec": map[string]any{"containers": []any{container}}}}
	}
	live, err := c.ObjectToTyped(pod(map[string]any{"name": "a", "image": "one", "args": []any{"x"}}))
	if err != nil {
		t.Fatal(err)
	}
	config, err := c.ObjectToTyped(pod(map[string]any{"name": "b", "args": []any{"y"},
		"ports": []any{map[string]any{"containerPort": int64(80)}}}))
	if err != nil {
		t.Fatal(err)
	}
	merged, err := live.Merge(config)
	if err != nil {
		t.Fatal(err)
	}
	set, err := merged.ToFieldSet()
	if err != nil {
		t.Fatal(err)
	}
	const want = `.spec.containers[name="b"].ports[containerPort=80,protocol="TCP"].containerPort` // protocol by its default
	for _, path := range []string{`.spec.containers[name="a"].args`, `.spec.containers[name="b"].args`, want} {
		if !strings.Contains(set.String(), path) {
			t.Errorf("no %s in\n%s", path, set)
		}
	}
}

func TestTypesUnknown(t *testing.T) {
	var types Types
	for _, gvk := range []schema.GroupVersionKind{{Group: "example.dev", Version: "v1", Kind: "Widget"}, {Version: "v2", Kind: "Pod"}} {
		if _, err := types.TypeConverter(gvk); !apiruntime.IsNotRegisteredError(err) {
			t.Errorf("%s: %v", gvk, err)
		}
	}
}

// BenchmarkTypes is what the first apply to a kind costs, and the heap that its description keeps.
func BenchmarkTypes(b *testing.B) {
	for _, gvk := range []schema.GroupVersionKind{kube.ConfigMap, kube.Deployment} {
		b.Run(gvk.Kind, func(b *testing.B) {
			var before, after runtime.MemStats
			var kept []any
			runtime.GC()
			runtime.ReadMemStats(&before)
			for b.Loop() {
				var types Types
				c, err := types.TypeConverter(gvk)
				if err != nil {
					b.Fatal(err)
				}
				kept = append(kept, c)
			}
			runtime.GC()
			runtime.ReadMemStats(&after)
			b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(len(kept))/1024, "kept-KiB")
			runtime.KeepAlive(kept)
		})
	}
}
