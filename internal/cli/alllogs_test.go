package cli

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestLogsOfAllNodes checks what --all-nodes asks the hub for, and that a dark node is named while the others' lines come in order.
func TestLogsOfAllNodes(t *testing.T) {
	h := newFakeHub(t)
	running := func(name, node string) corev1.Pod {
		p := fakePod(name, "app")
		p.Spec.NodeName = node
		p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "app", ContainerID: "first", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}
		return *p
	}
	h.serve("/api/v1/namespaces/default/pods", corev1.PodList{TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"},
		Items: []corev1.Pod{running("one", "pi1"), running("two", "pi2"), running("three", "pi3")}})
	h.serve("/apis/apps/v1/namespaces/default/deployments/web", map[string]any{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": map[string]any{"name": "web"},
		"spec": map[string]any{"selector": map[string]any{"matchLabels": map[string]any{"app": "web"}}}})
	h.serve("/api/v1/namespaces/default/pods/one", running("one", "pi1"))
	for pod, log := range map[string]string{"one": "2026-01-01T00:00:01Z first\n2026-01-01T00:00:03Z third\n", "two": "2026-01-01T00:00:02Z second\n"} {
		h.mux.HandleFunc("/api/v1/namespaces/default/pods/"+pod+"/log", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, log) })
	}
	h.mux.HandleFunc("/api/v1/namespaces/default/pods/three/log", func(w http.ResponseWriter, _ *http.Request) {
		h.refuse(w, http.StatusServiceUnavailable, metav1.StatusReasonServiceUnavailable, "node pi3 is dark since 12:00")
	})
	const want = "[pod/one/app] first\n[pod/two/app] second\n[pod/one/app] third\n"
	for _, l := range []Logs{
		{Selector: "app=web", Tail: 7, Since: 90 * time.Second},
		{Args: []string{"deploy/web"}, Tail: -1},
	} {
		var o output
		l.Cluster, l.AllNodes, l.MaxLogs = h.cluster(), true, 10
		mustFail(t, l.Run(t.Context(), o.streams("")), "pod/three/app on node pi3 is missing: node pi3 is dark since 12:00 (ServiceUnavailable)")
		if o.out.String() != want {
			t.Errorf("%+v: %q, want %q", l.Args, o.out.String(), want)
		}
	}
	if !h.asked("/pods/one/log?", "container=app", "tailLines=7", "sinceSeconds=90", "timestamps=true") || !h.asked("/pods?", "labelSelector=app%3Dweb") {
		t.Errorf("asked for %q", h.requests)
	}
	for args, text := range map[string]string{
		"": "--all-nodes needs -l SELECTOR, or TYPE/NAME of a workload", "one": "--all-nodes needs -l SELECTOR", "pod/one": "pod/one: it selects no pods", "deploy/none": `"none" not found`,
	} {
		var o output
		mustFail(t, (&Logs{Cluster: h.cluster(), Args: strings.Fields(args), AllNodes: true, MaxLogs: 10}).Run(t.Context(), o.streams("")), text)
	}
	var o output
	mustFail(t, (&Logs{Cluster: h.cluster(), Args: []string{"deploy/web"}, Selector: "a=b", AllNodes: true}).Run(t.Context(), o.streams("")), "give a workload or a selector, not both")
}
