package crd

import (
	"fmt"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/hub/resource"
)

// BenchmarkUpdate patches an object with a schema while a loop and two watches follow it, as an operator's are.
func BenchmarkUpdate(b *testing.B) {
	for name, fields := range map[string]int{"1KB": 20, "100KB": 2000} {
		b.Run(name, func(b *testing.B) {
			h := newBench(b)
			text := apiextensionsv1.JSONSchemaProps{Type: "object", AdditionalProperties: &apiextensionsv1.JSONSchemaPropsOrBool{Schema: &apiextensionsv1.JSONSchemaProps{
				Type: "object", Properties: map[string]apiextensionsv1.JSONSchemaProps{"a": {Type: "string"}}}}}
			h.define("Thing", "things", map[string]apiextensionsv1.JSONSchemaProps{"spec": text, "count": {Type: "integer"}})
			h.served(kindOf("Thing"), true)
			client := h.reg.Client()
			client.Subscribe(b.Context(), func(control.Change) {}, kindOf("Thing"))
			obj, spec := object(kindOf("Thing"), "a"), map[string]any{}
			for i := range fields {
				spec[fmt.Sprintf("field-%05d", i)] = map[string]any{"a": "0123456789"}
			}
			obj.Object["spec"] = spec
			obj.SetLabels(map[string]string{"app": "web"})
			if _, err := client.Create(b.Context(), obj); err != nil {
				b.Fatal(err)
			}
			k, _ := h.kinds.Lookup(kindOf("Thing"))
			var watches []registry.Watch
			for _, selector := range []string{"", "app=web"} {
				w, err := h.reg.Watch(b.Context(), resource.Target{Kind: k}, &metav1.ListOptions{LabelSelector: selector})
				if err != nil {
					b.Fatal(err)
				}
				defer w.Close()
				watches = append(watches, w)
			}
			next := func() {
				for _, w := range watches {
					if _, err := w.Next(b.Context()); err != nil {
						b.Fatal(err)
					}
				}
			}
			next()
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if _, err := h.reg.Patch(b.Context(), resource.Target{Kind: k, Name: "a"}, types.MergePatchType, fmt.Appendf(nil, `{"count":%d}`, i+1), &metav1.PatchOptions{}); err != nil {
					b.Fatal(err)
				}
				next()
			}
		})
	}
}
