package cli

import (
	"context"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/internal/cli/message"
)

// TestMissingNameSuggested checks that a missing name costs a list only when its error is shown, and that a server which refuses the list
// leaves the error as it was.
func TestMissingNameSuggested(t *testing.T) {
	h := newFakeHub(t)
	absent := func(path, message string) {
		h.mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			h.refuse(w, http.StatusNotFound, metav1.StatusReasonNotFound, message)
		})
	}
	absent("/api/v1/namespaces/default/pods/wbe", `pods "wbe" not found`)
	absent("/api/v1/nodes/p1", `nodes "p1" not found`)
	h.serve("/api/v1/namespaces/default/pods", corev1.PodList{
		TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}, Items: []corev1.Pod{*fakePod("web", "c"), *fakePod("database", "c")},
	})
	h.mux.HandleFunc("/api/v1/nodes", func(w http.ResponseWriter, _ *http.Request) {
		h.refuse(w, http.StatusForbidden, metav1.StatusReasonForbidden, "nodes is forbidden")
	})

	var o output
	err := (&Get{Cluster: h.cluster(), Args: []string{"pod", "wbe"}}).Run(t.Context(), o.streams(""))
	if h.asked("/pods?") {
		t.Error("the names were asked for before the error was shown")
	}
	if got, want := message.Of(err), `pods "wbe" not found (NotFound); did you mean "web"?`; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if !h.asked("GET", "/pods?limit=") {
		t.Errorf("the names were not asked for: %q", h.requests)
	}
	err = (&Logs{Cluster: h.cluster(), Args: []string{"wbe"}, Tail: -1}).Run(t.Context(), o.streams(""))
	mustFail(t, err, `did you mean "web"?`)

	err = (&Get{Cluster: h.cluster(), Args: []string{"node", "p1"}}).Run(t.Context(), o.streams(""))
	if got, want := message.Of(err), `nodes "p1" not found (NotFound)`; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	mustFail(t, (&Get{Cluster: h.cluster(), Args: []string{"podz"}}).Run(t.Context(), o.streams("")), `; did you mean "pods"?`)

	absent("/apis/apps/v1/namespaces/default/deployments/shpo", `deployments.apps "shpo" not found`)
	h.mux.HandleFunc("/apis/apps/v1/namespaces/default/deployments/shpo/scale", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusNotFound) // with details: without a name in them it would be the type that has no scale
		_, _ = io.WriteString(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","message":"deployments.apps \"shpo\" not found","reason":"NotFound","details":{"name":"shpo"},"code":404}`)
	})
	h.serve("/apis/apps/v1/namespaces/default/deployments", appsv1.DeploymentList{
		TypeMeta: metav1.TypeMeta{Kind: "DeploymentList", APIVersion: "apps/v1"}, Items: []appsv1.Deployment{{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}},
	})
	h.mux.HandleFunc("/api/v1/nodes/pi9", func(w http.ResponseWriter, _ *http.Request) {
		h.refuse(w, http.StatusNotFound, metav1.StatusReasonNotFound, `nodes "pi9" not found`)
	})
	for _, c := range []interface {
		Run(ctx context.Context, s *Streams) error
	}{
		&Scale{Cluster: h.cluster(), Args: []string{"deployment/shpo"}, Replicas: 2, Current: -1},
		&RolloutStatus{oneWorkload: oneWorkload{Cluster: h.cluster(), Args: []string{"deployment/shpo"}}},
		&RolloutRestart{oneWorkload: oneWorkload{Cluster: h.cluster(), Args: []string{"deployment/shpo"}}},
	} {
		mustFail(t, c.Run(t.Context(), o.streams("")), `did you mean "shop"?`)
	}
	before := len(h.requests)
	mustFail(t, (&Cordon{Cluster: h.cluster(), Nodes: []string{"pi9"}}).Run(t.Context(), o.streams("")), `nodes "pi9" not found`)
	if !slices.ContainsFunc(h.requests[before:], func(r string) bool { return strings.Contains(r, "/nodes?limit=") }) {
		t.Errorf("the nodes' names were not asked for: %q", h.requests[before:])
	}
}
