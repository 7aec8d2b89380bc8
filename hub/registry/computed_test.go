package registry_test

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/hub/registry/registrytest"
	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

// TestComputedKind checks that objects which are made when they are asked for are read and selected like stored ones, and are as
// they are at that moment.
func TestComputedKind(t *testing.T) {
	kinds, message := registrytest.Kinds(), "ok"
	part := func(name string) kube.Object {
		return &corev1.ComponentStatus{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ComponentStatus"}, ObjectMeta: metav1.ObjectMeta{Name: name},
			Conditions: []corev1.ComponentCondition{{Type: corev1.ComponentHealthy, Status: corev1.ConditionTrue, Message: message}}}
	}
	if err := kinds.Compute(kube.ComponentStatus, func() []kube.Object { return []kube.Object{part("broker"), part("store")} }); err != nil {
		t.Fatal(err)
	}
	if err := kinds.Compute(kube.ConfigMap, nil); err == nil {
		t.Error("a kind that is stored may be computed")
	}
	r := registrytest.Start(t, registry.Config{Kinds: kinds})
	k, _ := kinds.Lookup(kube.ComponentStatus)
	for _, c := range []struct {
		opts metav1.ListOptions
		want []string
	}{
		{metav1.ListOptions{}, []string{"broker", "store"}},
		{metav1.ListOptions{FieldSelector: "metadata.name=store"}, []string{"store"}},
		{metav1.ListOptions{LabelSelector: "a=b"}, nil},
	} {
		res, err := r.List(ctx, resource.Target{Kind: k}, &c.opts)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, item := range res.Items {
			got = append(got, registrytest.Decode[corev1.ComponentStatus](t, item).Name)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%+v: %q, want %q", c.opts, got, c.want)
		}
	}
	message = "still ok"
	res, err := r.Get(ctx, resource.Target{Kind: k, Name: "store"}, nil)
	if err != nil || registrytest.Decode[corev1.ComponentStatus](t, res.JSON).Conditions[0].Message != "still ok" {
		t.Errorf("%s, %v", res.JSON, err)
	}
	if _, err := r.Get(ctx, resource.Target{Kind: k, Name: "scheduler"}, nil); !apierrors.IsNotFound(err) {
		t.Errorf("a part that there is not: %v", err)
	}
}
