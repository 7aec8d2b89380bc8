package hub

import (
	"context"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

// TestScaleOfAnOlderObject checks that a disruption budget sees the replicas of a custom object as clients see them: an object that was
// stored before its definition had a default has that default.
func TestScaleOfAnOlderObject(t *testing.T) {
	w := startThings(t, 0)
	ctx, cancel := context.WithTimeout(w.ctx, 20*time.Second)
	defer cancel()
	w.create(thingGVK, `{metadata: {name: old, namespace: ns}, spec: {color: red}}`)
	if err := w.objects.CatchUp(w.ctx); err != nil {
		t.Fatal(err)
	}
	definitions, _ := w.kinds.Lookup(kube.CustomResourceDefinition)
	const patch = `[{"op":"add","path":"/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/replicas/default","value":4},
		{"op":"add","path":"/spec/versions/1/schema/openAPIV3Schema/properties/spec/properties/replicas/default","value":4}]`
	if _, err := w.registry.Patch(w.ctx, resource.Target{Kind: definitions, Name: "things.example.dev"}, types.JSONPatchType, []byte(patch), &metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	var replicas int32
	var err error
	for range w.kinds.Changes(ctx) { // until the definition is served
		_, replicas, err = scales{w.kinds, w.objects}.Scale(w.ctx, &metav1.OwnerReference{APIVersion: "example.dev/v1", Kind: "Thing", Name: "old"}, "ns")
		if err == nil && replicas == 4 {
			return
		}
	}
	t.Errorf("%d replicas, %v; the definition says 4", replicas, err)
}
