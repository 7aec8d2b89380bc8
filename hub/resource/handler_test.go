package resource

import (
	"context"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"

	"petrel.dev/petrel/internal/kube"
)

type noHandler struct{}

func (noHandler) Handle(context.Context, *Request, runtime.Object, Objects) (Answer, error) {
	return Answer{}, nil
}

// TestHandlersAreOfDeclaredSubresources checks that a handler that nothing leads to, or a second one, is a mistake of the
// hub's.
func TestHandlersAreOfDeclaredSubresources(t *testing.T) {
	kinds := New()
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
	declared := func(change func(*Kind)) error {
		k := configMapKind()
		k.GVK.Group, k.Handler, k.Verbs = "example.dev", noHandler{}, []string{"create"}
		change(k)
		return New().Add(k)
	}
	if err := declared(func(*Kind) {}); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*Kind){
		"a verb":        func(k *Kind) { k.Verbs = slices.Concat(k.Verbs, []string{"list"}) },
		"no verb":       func(k *Kind) { k.Verbs = nil },
		"a view":        func(k *Kind) { k.StoredAs = configMapKind() },
		"a subresource": func(k *Kind) { k.Subresources = map[string]*Subresource{"status": {Name: "status"}} },
	} {
		if err := declared(change); err == nil {
			t.Errorf("declared with %s", name)
		}
	}
}
