package registrytest

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/internal/kube"
)

// WantError checks an error's code and the text that people and clients look for.
func WantError(t testing.TB, err error, code int32, text string) {
	t.Helper()
	st, ok := err.(apierrors.APIStatus)
	if !ok {
		t.Fatalf("error is %v, want a status %d %q", err, code, text)
	}
	if s := st.Status(); s.Code != code || !strings.Contains(s.Message, text) {
		t.Fatalf("error is %d %q, want %d %q", s.Code, s.Message, code, text)
	}
}

// Decode returns what is in JSON.
func Decode[T any](t testing.TB, raw []byte) *T {
	t.Helper()
	out := new(T)
	if err := json.Unmarshal(raw, out); err != nil {
		t.Fatalf("%v in %s", err, raw)
	}
	return out
}

// Create creates obj as the hub itself and returns a copy of what is stored.
func Create[T kube.Object](t testing.TB, r *registry.Registry, obj T) T {
	t.Helper()
	out, err := r.Client().Create(context.Background(), obj)
	if err != nil {
		t.Fatal(err)
	}
	return out.DeepCopyObject().(T)
}
