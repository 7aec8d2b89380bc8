package apiserver_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/hub/apiserver"
	"petrel.dev/petrel/hub/auth"
	"petrel.dev/petrel/hub/auth/satoken"
	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/hub/resource/builtin"
	"petrel.dev/petrel/hub/resource/openapi"
	"petrel.dev/petrel/internal/kube"
)

var update = flag.Bool("update", false, "write testdata/access.txt again")

// countedVerbs answers "not found" to everything, and counts what came as far as this.
type countedVerbs struct{ calls int }

func (v *countedVerbs) none() error {
	v.calls++
	return apierrors.NewNotFound(corev1.Resource("things"), "x")
}

func (v *countedVerbs) Create(context.Context, resource.Target, runtime.Object, *metav1.CreateOptions) (*registry.Result, error) {
	return nil, v.none()
}

func (v *countedVerbs) Get(context.Context, resource.Target, *metav1.GetOptions) (*registry.Result, error) {
	return nil, v.none()
}

func (v *countedVerbs) Update(context.Context, resource.Target, runtime.Object, *metav1.UpdateOptions) (*registry.Result, error) {
	return nil, v.none()
}

func (v *countedVerbs) Patch(context.Context, resource.Target, types.PatchType, []byte, *metav1.PatchOptions) (*registry.Result, error) {
	return nil, v.none()
}

func (v *countedVerbs) Delete(context.Context, resource.Target, *metav1.DeleteOptions) (*registry.Result, error) {
	return nil, v.none()
}

func (v *countedVerbs) DeleteCollection(context.Context, resource.Target, *metav1.DeleteOptions, *metav1.ListOptions) (*registry.ListResult, error) {
	return nil, v.none()
}

func (v *countedVerbs) List(context.Context, resource.Target, *metav1.ListOptions) (*registry.ListResult, error) {
	return nil, v.none()
}

func (v *countedVerbs) Watch(context.Context, resource.Target, *metav1.ListOptions) (registry.Watch, error) {
	return nil, v.none()
}

// living is what the authenticator finds: each account exists, each with one UID.
type living struct{}

func (living) CatchUp(context.Context) error { return nil }

func (living) Get(gvk kube.GVK, ns, name string) (kube.Object, bool) {
	return &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name, UID: "1"}}, gvk == kube.ServiceAccount
}

// callers are the three of the table: each sets its credentials on a request.
func callers(t *testing.T, pki *auth.PKI) map[string]func(*http.Request) {
	sa := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "default", UID: "1"}}
	token, _, err := pki.Tokens().IssueToken(t.Context(), sa, satoken.Bound{}, nil, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	admin, err := x509.ParseCertificate(clientTLS(t, pki).Certificates[0].Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	return map[string]func(*http.Request){
		"nobody": func(*http.Request) {},
		"pod":    func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) },
		"admin":  func(r *http.Request) { r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{admin}} },
	}
}

// routes are every path of every kind, and those that are no objects; some that do not exist.
func routes(kinds *resource.Kinds) (out []string) {
	out = []string{
		"/", "/api", "/api/", "/api/v1", "/apis", "/apis/apps", "/apis/apps/v1", "/healthz", "/livez", "/livez/ping", "/metrics", "/nowhere",
		"/openapi/v2", "/openapi/v3", "/openapi/v3/api/v1", "/openid/v1/jwks", "/.well-known/openid-configuration", "/readyz", "/version", "/version/x",
		"/api/v1/gadgets", "/api/v2/pods", "/apis/nope/v1/things", "/apis/apps/v1/namespaces/default/gadgets/x", "/debug/pprof/",
		"/apis/apiextensions.k8s.io/v1/customresourcedefinitions", "/apis/authentication.k8s.io/v1/selfsubjectreviews",
		"/api/v1/watch/secrets", "/api/v1/watch/namespaces/default/secrets/x",
	}
	for _, k := range kinds.All() {
		base := "/apis/" + k.GVK.Group + "/" + k.GVK.Version + "/"
		if k.GVK.Group == "" {
			base = "/api/v1/"
		}
		all := []string{base + k.Plural}
		if k.Namespaced {
			base += "namespaces/default/"
			all = append(all, base+k.Plural)
		}
		all = append(all, base+k.Plural+"/x")
		for name := range k.Subresources {
			all = append(all, base+k.Plural+"/x/"+name)
		}
		out = append(out, all...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// ownReviews are about who asks. They are all that a pod may do with objects, and change none.
var ownReviews = map[string]bool{
	"/apis/authentication.k8s.io/v1/selfsubjectreviews":      true,
	"/apis/authorization.k8s.io/v1/selfsubjectaccessreviews": true,
	"/apis/authorization.k8s.io/v1/selfsubjectrulesreviews":  true,
}

// TestAccessTable asks for every route with every method as a stranger, a pod and the administrator, and compares with
// testdata/access.txt who is let through. A new route must show up there before it can be merged.
func TestAccessTable(t *testing.T) {
	t.Parallel()
	pki, err := auth.LoadPKI(filepath.Join(t.TempDir(), "pki"))
	if err != nil {
		t.Fatal(err)
	}
	kinds, verbs := builtin.New(), &countedVerbs{}
	handler, err := apiserver.New(apiserver.Config{
		Verbs: verbs, Kinds: kinds, Authenticator: auth.NewAuthenticator(pki, living{}), Authorizer: auth.MastersOnly{},
		OpenAPI: openapi.New(kinds), JWKS: pki.Tokens().JWKS,
	})
	if err != nil {
		t.Fatal(err)
	}
	ask := func(method, path string, as func(*http.Request)) string {
		r := httptest.NewRequest(method, path, strings.NewReader("{}"))
		as(r)
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		switch w.Code {
		case 401, 403:
			return fmt.Sprint(w.Code)
		}
		return "yes"
	}
	who := callers(t, pki)
	var b strings.Builder
	for _, path := range routes(kinds) {
		byAnswer := map[string][]string{}
		for _, m := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "WATCH", "BREW"} {
			method, p := m, path
			if m == "WATCH" {
				method, p = "GET", path+"?watch=true"
			}
			before := verbs.calls
			nobody := ask(method, p, who["nobody"])
			if verbs.calls != before {
				t.Errorf("%s %s of a stranger reached the registry", m, path)
			}
			pod := ask(method, p, who["pod"])
			if verbs.calls != before && !(m == "POST" && ownReviews[path]) {
				t.Errorf("%s %s of a pod reached the registry", m, path)
			}
			answer := fmt.Sprintf("nobody %s, pod %s, admin %s", nobody, pod, ask(method, p, who["admin"]))
			byAnswer[answer] = append(byAnswer[answer], m)
		}
		for _, answer := range slices.Sorted(maps.Keys(byAnswer)) {
			fmt.Fprintf(&b, "%s %s: %s\n", path, strings.Join(byAnswer[answer], ","), answer)
		}
	}
	golden(t, filepath.Join("testdata", "access.txt"), b.String())
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got == string(want) {
		return
	}
	have := strings.Split(string(want), "\n")
	for _, line := range strings.Split(got, "\n") {
		if !slices.Contains(have, line) {
			t.Errorf("not in %s: %s", file, line)
		}
	}
	t.Errorf("the access table changed; when it should, run this test with -update and say why in the commit")
}

// A part that decides who may do what cannot be forgotten.
func TestMissingAuthorizerIsAStartError(t *testing.T) {
	t.Parallel()
	kinds := builtin.New()
	full := apiserver.Config{Verbs: &countedVerbs{}, Kinds: kinds, Authenticator: new(auth.Credentials), Authorizer: auth.MastersOnly{}}
	for name, drop := range map[string]func(*apiserver.Config){
		"Authorizer":    func(c *apiserver.Config) { c.Authorizer = nil },
		"Authenticator": func(c *apiserver.Config) { c.Authenticator = nil },
		"Verbs":         func(c *apiserver.Config) { c.Verbs = nil },
		"Kinds":         func(c *apiserver.Config) { c.Kinds = nil },
	} {
		c := full
		drop(&c)
		if h, err := apiserver.New(c); h != nil || err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("without %s: %v, %v", name, h, err)
		}
	}
	if _, err := apiserver.New(full); err != nil {
		t.Error(err)
	}
}

// unsure is an authorizer whose policy cannot be read.
type unsure struct{}

func (unsure) Authorize(context.Context, auth.User, auth.Attributes) (bool, string, error) {
	return true, "", errors.New("the policy cannot be read")
}

func TestUnreadablePolicyRefuses(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	verbs := &countedVerbs{}
	handler, err := apiserver.New(apiserver.Config{Verbs: verbs, Kinds: builtin.New(), Authenticator: auth.NewAuthenticator(h.pki, living{}), Authorizer: unsure{}})
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest("GET", configMaps, nil)
	callers(t, h.pki)["admin"](r)
	w := httptest.NewRecorder()
	if handler.ServeHTTP(w, r); w.Code != 500 || verbs.calls != 0 {
		t.Errorf("%d %s, %d calls", w.Code, w.Body, verbs.calls)
	}
}

// A request to be treated as another user must not be served with the client's own rights.
func TestImpersonationIsRefused(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	for _, header := range []string{"Impersonate-User: nobody", "impersonate-group: system:masters", "Impersonate-Uid: 1", "Impersonate-Extra-Reason: x"} {
		for _, path := range []string{configMaps, "/api", "/version", "/readyz"} {
			a := h.do("GET", path, "", header)
			if a.code != 403 || !strings.Contains(a.body, "impersonat") || !strings.Contains(a.body, "no impersonation yet") {
				t.Errorf("%s %s: %+v", header, path, a)
			}
		}
	}
	a := h.do("DELETE", configMaps+"/x", "", "Impersonate-User: nobody")
	if want := `users \"nobody\" is forbidden: User \"petrel-admin\" cannot impersonate resource \"users\" in API group \"\" at the cluster scope`; !strings.Contains(a.body, want) {
		t.Errorf("%s, want %s", a.body, want)
	}
}

// recorded remembers what authorization was asked.
type recorded struct{ last auth.Attributes }

func (r *recorded) Authorize(_ context.Context, _ auth.User, a auth.Attributes) (bool, string, error) {
	r.last = a
	return false, "", nil
}

// A WebSocket begins with GET; what it does in a pod is not reading.
func TestCommandsByGetAskForCreate(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	var rec recorded
	handler, err := apiserver.New(apiserver.Config{Verbs: &countedVerbs{}, Kinds: builtin.New(), Authenticator: auth.NewAuthenticator(h.pki, living{}), Authorizer: &rec})
	if err != nil {
		t.Fatal(err)
	}
	for sub, want := range map[string]string{"exec": "create", "attach": "create", "portforward": "create", "log": "get"} {
		r := httptest.NewRequest("GET", "/api/v1/namespaces/default/pods/x/"+sub, nil)
		callers(t, h.pki)["admin"](r)
		handler.ServeHTTP(httptest.NewRecorder(), r)
		if rec.last.Verb != want || rec.last.Subresource != sub {
			t.Errorf("%s: %+v, want %s", sub, rec.last, want)
		}
	}
}
