package apiserver_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"petrel.dev/petrel/hub/apiserver"
	"petrel.dev/petrel/hub/auth"
	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/hub/registry/registrytest"
	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

// witness is an admission that records the user of requests for ConfigMaps.
type witness struct {
	mu   sync.Mutex
	seen []string
}

func (w *witness) note(where string, q *resource.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen = append(w.seen, fmt.Sprintf("%s: %s of %s by %q", where, q.User.Name, strings.Join(q.User.Groups, " "), q.Manager))
}

// take returns what was noted since the last call.
func (w *witness) take() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	seen := w.seen
	w.seen = nil
	return seen
}

func (w *witness) Mutate(_ context.Context, a *registry.AdmissionRequest) error {
	if a.Kind.GVK == kube.ConfigMap {
		w.note("admission", &a.Request)
	}
	return nil
}

func (*witness) Validate(context.Context, *registry.AdmissionRequest) error { return nil }

// everybody who is known may do everything.
type everybody struct{}

func (everybody) Authorize(context.Context, auth.User, auth.Attributes) (bool, string, error) {
	return true, "", nil
}

// TestWhoAsksReachesRulesAndAdmission sends real credentials: a client certificate, and a ServiceAccount's token.
func TestWhoAsksReachesRulesAndAdmission(t *testing.T) {
	w, kinds := &witness{}, registrytest.Kinds()
	k, _ := kinds.Lookup(kube.ConfigMap)
	validate := k.Rules.ValidateCreate
	k.Rules.ValidateCreate = func(ctx context.Context, obj kube.Object) field.ErrorList {
		w.note("rules", resource.RequestFrom(ctx))
		return validate(ctx, obj)
	}
	h := newHubOf(t, kinds, w, func(c *apiserver.Config) { c.Authorizer = everybody{} })
	robot := h.robot(t)
	const path = "/api/v1/namespaces/default/configmaps"
	const admin = "petrel-admin of system:masters system:authenticated"
	const account = "system:serviceaccount:default:robot of system:serviceaccounts system:serviceaccounts:default system:authenticated"
	for name, test := range map[string]struct {
		send func() answer
		want string
	}{
		"its program's name": {func() answer {
			return h.do("POST", path, configMap("a", ""), "Content-Type: application/json", "User-Agent: kubectl/v1.36 (linux/amd64)")
		}, admin + ` by "kubectl"`},
		"the name that it gives": {func() answer {
			return h.do("POST", path+"?fieldManager=helm", configMap("b", ""), "Content-Type: application/json", "User-Agent: kubectl/v1.36")
		}, admin + ` by "helm"`},
		"a token": {func() answer {
			return send(t, robot, "POST", h.url+path, configMap("c", ""), "Content-Type: application/json", "User-Agent: robot")
		}, account + ` by "robot"`},
	} {
		if got := test.send(); got.code != http.StatusCreated {
			t.Fatalf("%s: %d %s", name, got.code, got.body)
		}
		if got, want := w.take(), []string{"admission: " + test.want, "rules: " + test.want}; !slices.Equal(got, want) {
			t.Errorf("%s was seen as\n%q, want\n%q", name, got, want)
		}
	}
}

// echo answers reviews with who asked.
type echo struct{}

func (echo) Handle(_ context.Context, q *resource.Request, body runtime.Object, _ resource.Objects) (resource.Answer, error) {
	review := body.(*authorizationv1.SelfSubjectAccessReview).DeepCopy()
	review.Status = authorizationv1.SubjectAccessReviewStatus{Allowed: true, Reason: "asked by " + q.User.Name}
	return resource.Answer{Object: review}, nil
}

// TestKindWithoutStorageOverHTTP adds such a kind to a hub that runs: it is discovered, answers creations, and has no other
// route, as in Kubernetes.
func TestKindWithoutStorageOverHTTP(t *testing.T) {
	kinds := registrytest.Kinds()
	h := newHubOf(t, kinds, nil)
	const path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
	const review = `{"apiVersion":"authorization.k8s.io/v1","kind":"SelfSubjectAccessReview","spec":{"resourceAttributes":{"verb":"list","resource":"pods"}}}`
	if got := h.do("POST", path, review, "Content-Type: application/json"); got.code != http.StatusNotFound {
		t.Fatalf("before the kind is there: %d %s", got.code, got.body)
	}
	gvk := authorizationv1.SchemeGroupVersion.WithKind("SelfSubjectAccessReview")
	if err := kinds.Add(&resource.Kind{
		GVK: gvk, Plural: "selfsubjectaccessreviews", Singular: "selfsubjectaccessreview", Verbs: []string{"create"}, Handler: echo{},
		New: func() kube.Object {
			return &authorizationv1.SelfSubjectAccessReview{TypeMeta: metav1.TypeMeta{APIVersion: gvk.GroupVersion().String(), Kind: gvk.Kind}}
		},
	}); err != nil {
		t.Fatal(err)
	}
	got := h.do("POST", path, review, "Content-Type: application/json")
	var out authorizationv1.SelfSubjectAccessReview
	if err := json.Unmarshal([]byte(got.body), &out); err != nil || got.code != http.StatusCreated || !out.Status.Allowed ||
		out.Status.Reason != "asked by petrel-admin" || out.Spec.ResourceAttributes.Verb != "list" {
		t.Errorf("a review is answered %d %s, %v", got.code, got.body, err)
	}
	if out, code := h.kubectl("", "auth", "can-i", "list", "pods"); code != 0 || out != "yes\n" {
		t.Errorf("kubectl auth can-i: %d %s", code, out)
	}
	if got := h.do("GET", "/apis/authorization.k8s.io/v1", ""); !strings.Contains(got.body, `"verbs":["create"]`) || strings.Contains(got.body, "storageVersionHash") {
		t.Errorf("discovered as %s", got.body)
	}
	schema := h.do("GET", "/openapi/v3/apis/authorization.k8s.io/v1", "")
	if schema.code != 200 || !strings.Contains(schema.body, `"`+path+`":`) || strings.Contains(schema.body, path+"/{name}") {
		t.Errorf("described as %d %.500s", schema.code, schema.body)
	}
	for _, test := range []struct {
		method, path string
		code         int
	}{
		{"GET", path, 405}, {"GET", path + "?watch=true", 405}, {"DELETE", path, 405},
		{"GET", path + "/x", 404}, {"PUT", path + "/x", 404}, {"PATCH", path + "/x", 404}, {"DELETE", path + "/x", 404},
	} {
		if got := h.do(test.method, test.path, "", "Content-Type: application/json"); got.code != test.code {
			t.Errorf("%s %s: %d, want %d: %s", test.method, test.path, got.code, test.code, got.body)
		}
	}
}
