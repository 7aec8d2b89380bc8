package cli

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/internal/cli/screen/screentest"
	"petrel.dev/petrel/internal/kube"
)

// pullingHub has a Deployment whose pod waits for its image, until release is called.
func pullingHub(t *testing.T) (h *fakeHub, release func()) {
	h = newFakeHub(t)
	one := int32(1)
	deployment := func(available int32) appsv1.Deployment {
		return appsv1.Deployment{TypeMeta: metav1.TypeMeta{Kind: "Deployment", APIVersion: "apps/v1"}, ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", ResourceVersion: "5"},
			Spec:   appsv1.DeploymentSpec{Replicas: &one, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}},
			Status: appsv1.DeploymentStatus{Replicas: 1, UpdatedReplicas: 1, AvailableReplicas: available}}
	}
	h.serve("/apis/apps/v1/namespaces/default/deployments/web", deployment(0))
	up := make(chan struct{})
	h.mux.HandleFunc("/apis/apps/v1/namespaces/default/deployments", func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		select {
		case <-up:
			_ = json.NewEncoder(w).Encode(map[string]any{"type": "MODIFIED", "object": deployment(1)})
		case <-r.Context().Done():
		}
	})
	pod := fakePod("web-1", "app")
	pod.Spec.NodeName, pod.Spec.Containers[0].Image, pod.Status.Phase = "pi-1", "app:1", corev1.PodPending
	h.mux.HandleFunc("/api/v1/namespaces/default/pods", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("watch") == "true" {
			w.(http.Flusher).Flush()
			<-r.Context().Done()
			return
		}
		writeJSON(w, http.StatusOK, corev1.PodList{TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}, Items: []corev1.Pod{*pod}})
	})
	h.serve("/api/v1/nodes/pi-1/proxy/pulls", []kube.ImagePull{{Image: "app:1", Pods: []string{"default/web-1"}, Bytes: 10_000_000, TotalBytes: 40_000_000}})
	return h, func() { close(up) }
}

// TestRolloutShowsPulls has a line below the bar for a pull that a pod waits for. Where there is no terminal no node is asked.
func TestRolloutShowsPulls(t *testing.T) {
	t.Setenv("TERM", "xterm")
	h, release := pullingHub(t)
	tty, master := screentest.Terminal(t, 80, 24)
	r := RolloutStatus{oneWorkload: oneWorkload{Cluster: h.cluster(), Args: []string{"deploy", "web"}}, Watch: true}
	ended := make(chan error, 1)
	go func() { ended <- r.Run(t.Context(), &Streams{In: strings.NewReader(""), Out: tty, Err: tty}) }()
	var text string
	read := func(want string) {
		t.Helper()
		_ = master.SetReadDeadline(time.Now().Add(time.Minute))
		for buf := make([]byte, 4096); !strings.Contains(text, want); {
			n, err := master.Read(buf)
			if text += string(buf[:n]); err != nil {
				t.Fatalf("%v after %q, want %q", err, text, want)
			}
		}
	}
	read("] 0/1, 1 starting\x1b[K\r\r\n  pi-1 app:1 [#######.......................] 25% of 40.0 MB\x1b[1A")
	release()
	read("\r\x1b[Jdeployment \"web\" successfully rolled out\r\n")
	if err := <-ended; err != nil {
		t.Error(err)
	}

	h, release = pullingHub(t)
	release()
	var o output
	r.Cluster = h.cluster()
	if err := r.Run(t.Context(), o.streams("")); err != nil || h.asked("/pulls") || !strings.HasPrefix(o.out.String(), "Waiting for deployment") {
		t.Errorf("without a terminal: %v: %q", err, o.out.String())
	}
}
