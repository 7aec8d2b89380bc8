package dynamic_test

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	auditinternal "k8s.io/apiserver/pkg/apis/audit"
	"k8s.io/apiserver/pkg/warning"

	"petrel.dev/petrel/hub/admission"
	"petrel.dev/petrel/hub/admission/dynamic"
	admissionwebhook "petrel.dev/petrel/hub/admission/webhook"
	"petrel.dev/petrel/hub/auth"
	"petrel.dev/petrel/hub/objects"
	"petrel.dev/petrel/hub/quota"
	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/hub/registry/fieldmanager"
	"petrel.dev/petrel/hub/registry/registrytest"
	"petrel.dev/petrel/hub/resource/builtin"
	"petrel.dev/petrel/hub/resource/openapi"
	"petrel.dev/petrel/hub/webhook"
	"petrel.dev/petrel/internal/kube"
)

// house is a registry whose writes pass all of admission, with a webhook server beside it.
type house struct {
	*registry.Registry
	t   *testing.T
	url string
	ca  []byte

	mu    sync.Mutex
	hooks map[string]answer                          // by path; guarded by mu
	seen  map[string][]*admissionv1.AdmissionRequest // by path; guarded by mu
	notes map[string]string                          // audit annotations; guarded by mu
	// levels are those of notes; guarded by mu.
	levels map[string]auditinternal.Level
}

// answer is what a webhook says.
type answer func(w http.ResponseWriter, r *http.Request, q *admissionv1.AdmissionRequest)

// says answers with a response, to which it adds the uid.
func says(r admissionv1.AdmissionResponse) answer {
	return func(w http.ResponseWriter, _ *http.Request, q *admissionv1.AdmissionRequest) {
		own := r // requests come at the same time
		own.UID = q.UID
		_ = json.NewEncoder(w).Encode(review(&own))
	}
}

func review(r *admissionv1.AdmissionResponse) *admissionv1.AdmissionReview {
	return &admissionv1.AdmissionReview{TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"}, Response: r}
}

// patches answers with a JSON patch.
func patches(patch string) answer {
	kind := admissionv1.PatchTypeJSONPatch
	return says(admissionv1.AdmissionResponse{Allowed: true, Patch: []byte(patch), PatchType: &kind})
}

// allows answers that the write is fine.
var allows = says(admissionv1.AdmissionResponse{Allowed: true})

// some lets one user do everything, and others nothing.
type some string

func (s some) Authorize(_ context.Context, u auth.User, _ auth.Attributes) (bool, string, error) {
	return u.Name == string(s), "only " + string(s), nil
}

func newHouse(t *testing.T) *house {
	h := &house{t: t, hooks: map[string]answer{}, seen: map[string][]*admissionv1.AdmissionRequest{}, notes: map[string]string{}, levels: map[string]auditinternal.Level{}}
	s := httptest.NewTLSServer(h)
	t.Cleanup(s.Close)
	h.url, h.ca = s.URL, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	store, kinds := registrytest.Store(t), builtin.New()
	view := objects.New(objects.Config{Store: store, Kinds: kinds})
	d, err := dynamic.New(dynamic.Config{
		Objects: view, Kinds: kinds, Client: webhook.New(nil), Types: fieldmanager.TypeConverter(kinds, &openapi.Types{}), Authorizer: some("trusted"),
		Metrics: admissionwebhook.NewMetrics(), Log: slog.New(slog.DiscardHandler),
		Note: func(_ context.Context, level auditinternal.Level, key, value string) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.notes[key], h.levels[key] = value, level
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	chain, err := admission.New(admission.Config{Objects: view, Dynamic: d, Ledger: quota.NewLedger(view, kinds.OfResource)})
	if err != nil {
		t.Fatal(err)
	}
	h.Registry = registrytest.Start(t, registry.Config{Store: store, Kinds: kinds, Objects: view, Admission: chain})
	h.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ns", Labels: map[string]string{"team": "a"}}})
	h.create(&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "default"}})
	return h
}

// ServeHTTP is the webhook server.
func (h *house) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b, err := io.ReadAll(r.Body)
	var q admissionv1.AdmissionReview
	if err == nil {
		err = json.Unmarshal(b, &q)
	}
	if err != nil || q.Request == nil {
		http.Error(w, "not a review", http.StatusBadRequest)
		return
	}
	h.mu.Lock()
	h.seen[r.URL.Path] = append(h.seen[r.URL.Path], q.Request)
	a := h.hooks[r.URL.Path]
	h.mu.Unlock()
	if a == nil {
		http.NotFound(w, r)
		return
	}
	a(w, r, q.Request)
}

// calls returns what the webhook at path has been asked.
func (h *house) calls(path string) []*admissionv1.AdmissionRequest {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.seen[path]
}

func (h *house) note(key string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.notes[key]
}

// create creates obj as the hub.
func (h *house) create(obj kube.Object) {
	h.t.Helper()
	if _, err := h.Client().Create(h.t.Context(), obj); err != nil {
		h.t.Fatalf("create %s: %v", obj.GetName(), err)
	}
}

// at is a client configuration of the webhook at path.
func (h *house) at(path string) admissionregistrationv1.WebhookClientConfig {
	url := h.url + path
	return admissionregistrationv1.WebhookClientConfig{URL: &url, CABundle: h.ca}
}

// rule is about all operations on a resource, "pods" or "pods/exec".
func rule(group, version, resource string) []admissionregistrationv1.RuleWithOperations {
	return []admissionregistrationv1.RuleWithOperations{{
		Operations: []admissionregistrationv1.OperationType{"*"},
		Rule:       admissionregistrationv1.Rule{APIGroups: []string{group}, APIVersions: []string{version}, Resources: []string{resource}},
	}}
}

// mutating configures a webhook at /NAME for ConfigMaps, changed by change.
func (h *house) mutating(name string, a answer, change func(*admissionregistrationv1.MutatingWebhook)) {
	h.t.Helper()
	none := admissionregistrationv1.SideEffectClassNone
	w := admissionregistrationv1.MutatingWebhook{
		Name: name + ".example.com", ClientConfig: h.at("/" + name), Rules: rule("", "v1", "configmaps"), SideEffects: &none,
		AdmissionReviewVersions: []string{"v1"},
	}
	if change != nil {
		change(&w)
	}
	h.mu.Lock()
	h.hooks["/"+name] = a
	h.mu.Unlock()
	h.create(&admissionregistrationv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Webhooks: []admissionregistrationv1.MutatingWebhook{w}})
}

// validating configures a webhook at /NAME for ConfigMaps, changed by change.
func (h *house) validating(name string, a answer, change func(*admissionregistrationv1.ValidatingWebhook)) {
	h.t.Helper()
	none := admissionregistrationv1.SideEffectClassNone
	w := admissionregistrationv1.ValidatingWebhook{
		Name: name + ".example.com", ClientConfig: h.at("/" + name), Rules: rule("", "v1", "configmaps"), SideEffects: &none,
		AdmissionReviewVersions: []string{"v1"},
	}
	if change != nil {
		change(&w)
	}
	h.mu.Lock()
	h.hooks["/"+name] = a
	h.mu.Unlock()
	h.create(&admissionregistrationv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Webhooks: []admissionregistrationv1.ValidatingWebhook{w}})
}

// recorder collects warnings.
type recorder struct{ all []string }

func (r *recorder) AddWarning(_, text string) { r.all = append(r.all, text) }

// as returns the context of a request of a user, and its warnings.
func (h *house) as(user string) (context.Context, *recorder) {
	r := &recorder{}
	return warning.WithWarningRecorder(auth.WithUser(h.t.Context(), auth.User{Name: user, Groups: []string{"g"}}), r), r
}

// put creates a ConfigMap of a name, or a generated one when it ends with "-".
func (h *house) put(ctx context.Context, name string, opts *metav1.CreateOptions) (*corev1.ConfigMap, error) {
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, Labels: map[string]string{"app": "x"}}, Data: map[string]string{"k": "v"}}
	if strings.HasSuffix(name, "-") {
		cm.Name, cm.GenerateName = "", name
	}
	cm.SetGroupVersionKind(kube.ConfigMap)
	res, err := h.Create(ctx, registrytest.Target(h.t, kube.ConfigMap, "ns", ""), cm, opts)
	if err != nil {
		return nil, err
	}
	return registrytest.Decode[corev1.ConfigMap](h.t, res.JSON), nil
}

// merge applies a merge patch to a ConfigMap.
func (h *house) merge(ctx context.Context, name, patch string) (*corev1.ConfigMap, error) {
	res, err := h.Patch(ctx, registrytest.Target(h.t, kube.ConfigMap, "ns", name), types.MergePatchType, []byte(patch), nil)
	if err != nil {
		return nil, err
	}
	return registrytest.Decode[corev1.ConfigMap](h.t, res.JSON), nil
}
