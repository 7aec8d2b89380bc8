package hub

import (
	"context"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

// TestAutoscalerTargets reads and sets the scale of whatever kind has one on a whole hub, custom kinds too, and says what is wrong with the
// others.
func TestAutoscalerTargets(t *testing.T) {
	h, stop := startHub(t, "")
	defer stop()
	ctx := context.WithoutCancel(t.Context())
	create := func(gvk kube.GVK, manifest string) {
		t.Helper()
		k, ok := h.kinds.Lookup(gvk)
		if !ok {
			t.Fatalf("%s is not served", gvk)
		}
		text, err := yaml.YAMLToJSON([]byte(manifest))
		if err != nil {
			t.Fatal(err)
		}
		obj, _, err := k.DecodeStrict(text)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := h.registry.Create(ctx, resource.Target{Kind: k, Namespace: obj.GetNamespace()}, obj, nil); err != nil {
			t.Fatal(err)
		}
	}
	thing := kube.GVK{Group: "example.dev", Version: "v1", Kind: "Thing"}
	create(kube.CustomResourceDefinition, `{metadata: {name: things.example.dev}, spec: {group: example.dev, scope: Namespaced, names: {plural: things, kind: Thing},
		versions: [{name: v1, served: true, storage: true, subresources: {status: {}, scale: {specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas, labelSelectorPath: .status.selector}},
		schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}]}}`)
	for range h.kinds.Changes(ctx) {
		if _, ok := h.kinds.Lookup(thing); ok {
			break
		}
	}
	create(kube.Namespace, `{metadata: {name: ns}}`)
	create(thing, `{metadata: {name: a, namespace: ns}, spec: {replicas: 2}}`)
	create(kube.Deployment, `{metadata: {name: a, namespace: ns}, spec: {replicas: 2, selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i}]}}}}`)
	create(kube.ConfigMap, `{metadata: {name: a, namespace: ns}}`)

	a := autoscaling{h}
	for _, ref := range []autoscalingv2.CrossVersionObjectReference{
		{APIVersion: "apps/v1", Kind: "Deployment", Name: "a"}, {APIVersion: "apps/v9", Kind: "Deployment", Name: "a"}, {APIVersion: "example.dev/v1", Kind: "Thing", Name: "a"},
	} {
		scale, err := a.Scale(ctx, "ns", ref)
		if err != nil || scale.Spec.Replicas != 2 {
			t.Errorf("%v: %v, %v", ref, scale, err)
			continue
		}
		stale := scale.DeepCopy()
		for _, n := range []int32{5, 2} {
			for { // the Deployment's own controller writes it too
				scale.Spec.Replicas = n
				if err = a.Rescale(ctx, ref, scale); !apierrors.IsConflict(err) {
					break
				}
				if scale, err = a.Scale(ctx, "ns", ref); err != nil {
					break
				}
			}
			if err != nil {
				t.Errorf("%v: %v", ref, err)
			}
			if scale, err = a.Scale(ctx, "ns", ref); err != nil || scale.Spec.Replicas != n {
				t.Errorf("%v: %v, %v", ref, scale, err)
			}
		}
		stale.Spec.Replicas = 7
		if err := a.Rescale(ctx, ref, stale); !apierrors.IsConflict(err) {
			t.Errorf("%v: a write of an old scale: %v", ref, err)
		}
	}
	for ref, want := range map[autoscalingv2.CrossVersionObjectReference]string{
		{APIVersion: "apps/v1", Kind: "Deployment", Name: "none"}: `deployments.apps "none" not found`,
		{APIVersion: "apps/v1", Kind: "Nonsense", Name: "a"}:      `no matches for kind "Nonsense" in group "apps"`,
		{APIVersion: "v1", Kind: "ConfigMap", Name: "a"}:          "could not find the requested resource",
		{APIVersion: "a/b/c", Kind: "Deployment", Name: "a"}:      "unexpected GroupVersion string",
	} {
		if _, err := a.Scale(ctx, "ns", ref); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v; want %s", ref, err, want)
		}
	}
	if r, ok := a.Plural(schema.GroupKind{Group: "networking.k8s.io", Kind: "Ingress"}); !ok || r.String() != "ingresses.networking.k8s.io" {
		t.Errorf("%v, %v", r, ok)
	}
	if _, served, err := a.Get(ctx, schema.GroupVersion{Group: "external.metrics.k8s.io", Version: "v1beta1"}, "x", nil); served || err != nil {
		t.Errorf("%v, %v", served, err)
	}

	// A whole loop: an autoscaler brings what is above its maximum down to it, through the same pipeline as any client.
	watch := make(chan int32, 100)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	h.registry.Client().Subscribe(ctx, func(c control.Change) {
		if d, ok := c.New.(*appsv1.Deployment); ok {
			watch <- *d.Spec.Replicas
		}
	}, kube.Deployment)
	create(kube.HorizontalPodAutoscaler, `{metadata: {name: a, namespace: ns}, spec: {maxReplicas: 1, scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: a}}}`)
	for n := range watch {
		if n == 1 {
			break
		}
	}
}
