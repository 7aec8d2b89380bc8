package kube_test

import (
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"petrel.dev/petrel/internal/kube"
)

// TestNewInvalidIsBounded checks that few errors are refused in upstream's words, and a million in bounded time and text. Upstream's
// function alone needs minutes for them.
func TestNewInvalidIsBounded(t *testing.T) {
	kind := kube.ConfigMap.GroupKind()
	path := field.NewPath("metadata", "finalizers")
	few := field.ErrorList{field.Required(path, "a"), field.Invalid(path, "b", "c")}
	if got, want := kube.NewInvalid(kind, "x", few), apierrors.NewInvalid(kind, "x", few); got.Error() != want.Error() || len(got.ErrStatus.Details.Causes) != 2 {
		t.Errorf("%v, upstream %v", got, want)
	}
	one := field.ErrorList{field.Invalid(path, strings.Repeat("x", 1<<20), "large")}
	if got, want := kube.NewInvalid(kind, "x", one), apierrors.NewInvalid(kind, "x", one); got.Error() != want.Error() {
		t.Errorf("one large error is not upstream's: %d bytes, upstream %d", len(got.Error()), len(want.Error()))
	}
	for name, bad := range map[string]string{"many": "", "large": strings.Repeat("x", 64<<10)} {
		many := make(field.ErrorList, 1_000_000)
		for i := range many {
			many[i] = field.Invalid(path.Index(i), bad, "must not be")
		}
		got := kube.NewInvalid(kind, "x", many)
		if n := len(got.Error()); n > 512<<10 || !strings.HasSuffix(got.Error(), " more") || !apierrors.IsInvalid(got) {
			t.Errorf("%s: %d bytes that end with %q", name, n, got.Error()[n-40:])
		}
	}
}
