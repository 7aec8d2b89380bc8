package resource_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/hub/resource/builtin"
	"petrel.dev/petrel/internal/kube"
)

type noHandler struct{}

func (noHandler) Handle(context.Context, *resource.Request, runtime.Object, resource.Objects) (resource.Answer, error) {
	return resource.Answer{}, nil
}

// TestHandlersAreOfDeclaredSubresources checks that a handler that nothing leads to, or a second one, is a mistake of the
// hub's.
func TestHandlersAreOfDeclaredSubresources(t *testing.T) {
	kinds := builtin.New()
	if err := kinds.Handle(kube.Pod, "binding", noHandler{}); err != nil {
		t.Fatal(err)
	}
	if err := kinds.Handle(kube.TokenReview, "", noHandler{}); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		gvk  kube.GVK
		sub  string
		want string
	}{
		"a stored kind":   {kube.Pod, "", "its objects are stored"},
		"a kind's second": {kube.TokenReview, "", "it has one"},
		"no kind":         {kube.GVK{Kind: "House"}, "binding", "the kind is not declared"},
		"no subresource":  {kube.Pod, "nonsense", "the subresource is not declared"},
		"a second one":    {kube.Pod, "binding", "it has one"},
	} {
		if err := kinds.Handle(test.gvk, test.sub, noHandler{}); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
}

// TestVirtualKindsHaveNothingButCreate checks that what is not stored can be neither read, changed nor deleted.
func TestVirtualKindsHaveNothingButCreate(t *testing.T) {
	declared := func(change func(*resource.Kind)) error {
		k := resource.Declare(kube.ConfigMap, "configmaps", "configmap")
		k.GVK.Group, k.Handler, k.Verbs = "example.dev", noHandler{}, []string{"create"}
		change(k)
		return builtin.New().Add(k)
	}
	if err := declared(func(*resource.Kind) {}); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*resource.Kind){
		"a verb":        func(k *resource.Kind) { k.Verbs = slices.Concat(k.Verbs, []string{"list"}) },
		"no verb":       func(k *resource.Kind) { k.Verbs = nil },
		"a view":        func(k *resource.Kind) { k.StoredAs = resource.Declare(kube.ConfigMap, "configmaps", "configmap") },
		"a subresource": func(k *resource.Kind) { k.Subresources = map[string]*resource.Subresource{"status": {Name: "status"}} },
	} {
		if err := declared(change); err == nil {
			t.Errorf("declared with %s", name)
		}
	}
}
