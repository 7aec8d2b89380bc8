package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/internal/cli/message"
)

// fakeHub is an API server over objects in memory, for what a hub without nodes cannot answer: streams of containers, states
// that controllers make. It serves what commands ask for and answers 404 to all else.
type fakeHub struct {
	mux    *http.ServeMux
	config string // path of its kubeconfig

	mu       sync.Mutex
	requests []string // "METHOD path?query", in order
}

const fakeKubeconfig = `apiVersion: v1
kind: Config
current-context: fake
clusters: [{name: fake, cluster: {server: %q}}]
contexts: [{name: fake, context: {cluster: fake, user: fake}}]
users: [{name: fake, user: {token: secret}}]
`

func newFakeHub(t *testing.T) *fakeHub {
	h := &fakeHub{mux: http.NewServeMux(), config: filepath.Join(t.TempDir(), "config")}
	h.serve("/api", metav1.APIVersions{TypeMeta: metav1.TypeMeta{Kind: "APIVersions"}, Versions: []string{"v1"}})
	apps := metav1.GroupVersionForDiscovery{GroupVersion: "apps/v1", Version: "v1"}
	h.serve("/apis", metav1.APIGroupList{TypeMeta: metav1.TypeMeta{Kind: "APIGroupList", APIVersion: "v1"}, Groups: []metav1.APIGroup{
		{Name: "apps", Versions: []metav1.GroupVersionForDiscovery{apps}, PreferredVersion: apps},
	}})
	all := metav1.Verbs{"get", "list", "watch", "create", "patch", "delete"}
	h.serve("/api/v1", metav1.APIResourceList{TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: "v1", APIResources: []metav1.APIResource{
		{Name: "nodes", SingularName: "node", Kind: "Node", Verbs: all},
		{Name: "pods", SingularName: "pod", Kind: "Pod", Namespaced: true, Verbs: all, ShortNames: []string{"po"}},
		{Name: "pods/eviction", Kind: "Eviction", Group: "policy", Version: "v1", Namespaced: true, Verbs: metav1.Verbs{"create"}},
		{Name: "services", SingularName: "service", Kind: "Service", Namespaced: true, Verbs: all, ShortNames: []string{"svc"}},
	}})
	h.serve("/apis/apps/v1", metav1.APIResourceList{TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: "apps/v1", APIResources: []metav1.APIResource{
		{Name: "deployments", SingularName: "deployment", Kind: "Deployment", Namespaced: true, Verbs: all, ShortNames: []string{"deploy"}},
		{Name: "daemonsets", SingularName: "daemonset", Kind: "DaemonSet", Namespaced: true, Verbs: all, ShortNames: []string{"ds"}},
	}})
	h.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		h.refuse(w, http.StatusNotFound, metav1.StatusReasonNotFound, fmt.Sprintf("%q not found", filepath.Base(r.URL.Path)))
	})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.mu.Lock()
		h.requests = append(h.requests, r.Method+" "+r.URL.RequestURI())
		h.mu.Unlock()
		h.mux.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	if err := os.WriteFile(h.config, fmt.Appendf(nil, fakeKubeconfig, srv.URL), 0o600); err != nil {
		t.Fatal(err)
	}
	return h
}

// serve answers a path, of whatever method, with one object.
func (h *fakeHub) serve(path string, object any) {
	h.mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusOK, object) })
}

func (h *fakeHub) refuse(w http.ResponseWriter, code int32, reason metav1.StatusReason, message string) {
	writeJSON(w, int(code), metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Code: code, Reason: reason, Message: message})
}

func writeJSON(w http.ResponseWriter, code int, object any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(object) // a client that went away is not the test's concern
}

// asked reports whether a request with all these parts was made.
func (h *fakeHub) asked(parts ...string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, r := range h.requests {
		all := true
		for _, p := range parts {
			all = all && strings.Contains(r, p)
		}
		if all {
			return true
		}
	}
	return false
}

// cluster is how a command is pointed at the hub.
func (h *fakeHub) cluster() Cluster { return Cluster{Kubeconfig: h.config} }

// output is what a command has written.
type output struct{ out, err bytes.Buffer }

func (o *output) streams(input string) *Streams {
	return &Streams{In: strings.NewReader(input), Out: &o.out, Err: &o.err}
}

// fakePod is a running pod with these containers.
func fakePod(name string, containers ...string) *corev1.Pod {
	p := &corev1.Pod{
		TypeMeta: metav1.TypeMeta{Kind: "Pod", APIVersion: "v1"}, ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Status: corev1.PodStatus{Phase: corev1.PodRunning},
	}
	for _, c := range containers {
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: c})
	}
	return p
}

// mustFail checks that err has the text, in the form in which a user reads it.
func mustFail(t *testing.T, err error, text string) {
	t.Helper()
	if err == nil {
		t.Errorf("succeeded, want %q", text)
	} else if got := message.Of(err); !strings.Contains(got, text) {
		t.Errorf("%q, want %q", got, text)
	}
}
