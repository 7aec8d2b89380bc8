package cli

import (
	"context"
	"net/http"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestCompleter checks what completion learns from a server, and that one which refuses, does not answer or does not exist leaves
// it without names and without a line of error.
func TestCompleter(t *testing.T) {
	h := newFakeHub(t)
	h.serve("/api/v1/namespaces/default/pods", corev1.PodList{
		TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}, Items: []corev1.Pod{*fakePod("web", "c"), *fakePod("db", "c")},
	})
	h.mux.HandleFunc("/api/v1/nodes", func(w http.ResponseWriter, _ *http.Request) {
		h.refuse(w, http.StatusForbidden, metav1.StatusReasonForbidden, "nodes is forbidden")
	})
	h.mux.HandleFunc("/api/v1/namespaces/default/services", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })

	var o output
	s := o.streams("")
	c := h.cluster().Completer(t.Context(), s)
	if got := c.Types(); !slices.Contains(got, "pods") || !slices.Contains(got, "deployments") || slices.Contains(got, "pods/eviction") {
		t.Errorf("types: %q", got)
	}
	for _, typ := range []string{"pods", "po", "pod"} {
		if got := c.Names(typ); !slices.Equal(got, []string{"web", "db"}) {
			t.Errorf("%s: %q", typ, got)
		}
	}
	if got := c.Contexts(); !slices.Equal(got, []string{"fake"}) {
		t.Errorf("contexts: %q", got)
	}
	for _, typ := range []string{"nodes", "unicorns"} {
		if got := c.Names(typ); got != nil {
			t.Errorf("%s: %q", typ, got)
		}
	}

	ctx, cancel := context.WithCancel(t.Context())
	c = h.cluster().Completer(ctx, s)
	c.Types()
	cancel() // the time is over
	if got := c.Names("services"); got != nil {
		t.Errorf("services: %q", got)
	}
	c = Cluster{Kubeconfig: t.TempDir() + "/none"}.Completer(t.Context(), s)
	if got := slices.Concat(c.Types(), c.Names("pods"), c.Contexts()); got != nil {
		t.Errorf("without a cluster: %q", got)
	}
	if o.out.String()+o.err.String() != "" {
		t.Errorf("printed %q and %q", o.out.String(), o.err.String())
	}
}
