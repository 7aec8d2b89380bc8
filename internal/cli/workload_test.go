package cli

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestRolloutStatus(t *testing.T) {
	three := int32(3)
	h := newFakeHub(t)
	status := func(name string, st appsv1.DeploymentStatus) (string, error) {
		st.ObservedGeneration++
		h.serve("/apis/apps/v1/namespaces/default/deployments/"+name, appsv1.Deployment{
			TypeMeta: metav1.TypeMeta{Kind: "Deployment", APIVersion: "apps/v1"}, ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Generation: 1},
			Spec: appsv1.DeploymentSpec{Replicas: &three}, Status: st,
		})
		var o output
		r := RolloutStatus{oneWorkload: oneWorkload{Cluster: h.cluster(), Args: []string{"deployment/" + name}}} // no --watch: one line
		err := r.Run(t.Context(), o.streams(""))
		return o.out.String(), err
	}
	for i, c := range []struct {
		status appsv1.DeploymentStatus
		want   string
	}{
		{appsv1.DeploymentStatus{ObservedGeneration: -1}, "spec update to be observed"},
		{appsv1.DeploymentStatus{UpdatedReplicas: 1, Replicas: 4}, "1 out of 3 new replicas"},
		{appsv1.DeploymentStatus{UpdatedReplicas: 3, Replicas: 4}, "1 old replicas are pending"},
		{appsv1.DeploymentStatus{UpdatedReplicas: 3, Replicas: 3, AvailableReplicas: 2}, "2 of 3 updated replicas are available"},
		{appsv1.DeploymentStatus{UpdatedReplicas: 3, Replicas: 3, AvailableReplicas: 3}, "successfully rolled out"},
	} {
		line, err := status(fmt.Sprintf("d%d", i), c.status)
		if err != nil || !strings.Contains(line, c.want) || strings.Count(line, "\n") != 1 {
			t.Errorf("%+v: %q %v", c.status, line, err)
		}
	}
	_, err := status("late", appsv1.DeploymentStatus{Conditions: []appsv1.DeploymentCondition{{Type: appsv1.DeploymentProgressing, Reason: "ProgressDeadlineExceeded"}}})
	mustFail(t, err, `deployment "late" exceeded its progress deadline`)
}

// With --watch the lines go on until the rollout is done, and a watch that ends is opened again.
func TestRolloutStatusFollows(t *testing.T) {
	h := newFakeHub(t)
	one := int32(1)
	deployment := func(rv string, available int32) appsv1.Deployment {
		return appsv1.Deployment{
			TypeMeta: metav1.TypeMeta{Kind: "Deployment", APIVersion: "apps/v1"}, ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", ResourceVersion: rv},
			Spec: appsv1.DeploymentSpec{Replicas: &one}, Status: appsv1.DeploymentStatus{Replicas: 1, UpdatedReplicas: 1, AvailableReplicas: available},
		}
	}
	h.serve("/apis/apps/v1/namespaces/default/deployments/web", deployment("5", 0))
	watches := 0 // the handler runs one request at a time: the command waits for each
	h.mux.HandleFunc("/apis/apps/v1/namespaces/default/deployments", func(w http.ResponseWriter, r *http.Request) {
		if q := r.URL.Query(); q.Get("watch") != "true" || q.Get("resourceVersion") != "5" || q.Get("fieldSelector") != "metadata.name=web" {
			t.Errorf("asked for %s", r.URL)
		}
		watches++
		if watches == 1 {
			return // ended by the server, with nothing said
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"type": "MODIFIED", "object": deployment("6", 1)})
	})
	var o output
	r := RolloutStatus{oneWorkload: oneWorkload{Cluster: h.cluster(), Args: []string{"deploy", "web"}}, Watch: true}
	if err := r.Run(t.Context(), o.streams("")); err != nil {
		t.Fatal(err)
	}
	want := "Waiting for deployment \"web\" rollout to finish: 0 of 1 updated replicas are available...\ndeployment \"web\" successfully rolled out\n"
	if o.out.String() != want || watches != 2 {
		t.Errorf("%q after %d watches", o.out.String(), watches)
	}
}

// drainHub is a node with pods; an eviction removes its pod at once.
type drainHub struct {
	*fakeHub
	mu      sync.Mutex
	pods    map[string]*corev1.Pod
	evicted []policyv1.Eviction
}

func newDrainHub(t *testing.T, pods ...*corev1.Pod) *drainHub {
	h := &drainHub{fakeHub: newFakeHub(t), pods: map[string]*corev1.Pod{}}
	h.serve("/api/v1/nodes/pi", corev1.Node{TypeMeta: metav1.TypeMeta{Kind: "Node", APIVersion: "v1"}, ObjectMeta: metav1.ObjectMeta{Name: "pi"}})
	for _, p := range pods {
		h.pods[p.Name] = p
	}
	h.mux.HandleFunc("GET /api/v1/pods", func(w http.ResponseWriter, r *http.Request) {
		if got := r.URL.Query().Get("fieldSelector"); got != "spec.nodeName=pi" {
			t.Errorf("pods of %q", got)
		}
		list := corev1.PodList{TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}}
		h.mu.Lock()
		defer h.mu.Unlock()
		for _, p := range h.pods {
			list.Items = append(list.Items, *p)
		}
		writeJSON(w, http.StatusOK, list)
	})
	h.mux.HandleFunc("GET /api/v1/namespaces/default/pods/{name}", func(w http.ResponseWriter, r *http.Request) {
		h.mu.Lock()
		defer h.mu.Unlock()
		if p := h.pods[r.PathValue("name")]; p != nil {
			writeJSON(w, http.StatusOK, p)
			return
		}
		h.refuse(w, http.StatusNotFound, metav1.StatusReasonNotFound, "gone")
	})
	h.mux.HandleFunc("POST /api/v1/namespaces/default/pods/{name}/eviction", func(w http.ResponseWriter, r *http.Request) {
		var e policyv1.Eviction
		if err := json.NewDecoder(r.Body).Decode(&e); err != nil {
			t.Error(err)
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		h.evicted = append(h.evicted, e)
		delete(h.pods, r.PathValue("name"))
		writeJSON(w, http.StatusCreated, metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Success"})
	})
	return h
}

func ownedBy(p *corev1.Pod, kind string) *corev1.Pod {
	yes := true
	p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: kind, Name: "owner", UID: "u", Controller: &yes}}
	return p
}

func TestDrain(t *testing.T) {
	h := newDrainHub(t, ownedBy(fakePod("web", "c"), "ReplicaSet"))
	var o output
	if err := (&Drain{Cluster: h.cluster(), Nodes: []string{"node/pi"}, GracePeriod: 5}).Run(t.Context(), o.streams("")); err != nil {
		t.Fatal(err)
	}
	if want := "node/pi cordoned\nevicting pod default/web\npod/web evicted\nnode/pi drained\n"; o.out.String() != want {
		t.Errorf("%q, want %q", o.out.String(), want)
	}
	if len(h.evicted) != 1 || h.evicted[0].DeleteOptions == nil || *h.evicted[0].DeleteOptions.GracePeriodSeconds != 5 {
		t.Errorf("evictions %+v", h.evicted)
	}
}

// One pod that may not be lost keeps all of a node's pods where they are.
func TestDrainRefusals(t *testing.T) {
	scratch := ownedBy(fakePod("scratch", "c"), "ReplicaSet")
	scratch.Spec.Volumes = []corev1.Volume{{Name: "tmp", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
	for name, c := range map[string]struct {
		pod   *corev1.Pod
		drain Drain // with what makes it possible
		text  string
	}{
		"bare":     {fakePod("bare", "c"), Drain{Force: true}, "no pod was evicted: cannot delete Pods that declare no controller (use --force to override): default/bare"},
		"emptyDir": {scratch, Drain{DeleteEmptyDir: true}, "cannot delete Pods with local storage (use --delete-emptydir-data to override): default/scratch"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newDrainHub(t, ownedBy(fakePod("web", "c"), "ReplicaSet"), c.pod)
			var o output
			plain := Drain{Cluster: h.cluster(), Nodes: []string{"pi"}, GracePeriod: -1}
			mustFail(t, plain.Run(t.Context(), o.streams("")), c.text)
			if len(h.evicted) > 0 || strings.Contains(o.out.String(), "drained") {
				t.Errorf("evicted %+v\n%s", h.evicted, o.out.String())
			}
			c.drain.Cluster, c.drain.Nodes, c.drain.GracePeriod = plain.Cluster, plain.Nodes, -1
			if err := c.drain.Run(t.Context(), o.streams("")); err != nil || len(h.evicted) != 2 {
				t.Errorf("%v, evicted %+v", err, h.evicted)
			}
		})
	}
	h := newDrainHub(t)
	mustFail(t, (&Drain{Cluster: h.cluster(), Nodes: []string{"other"}}).Run(t.Context(), new(output).streams("")), `"other" not found`)
}
