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
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/hub/apiserver"
	"petrel.dev/petrel/hub/auth"
	"petrel.dev/petrel/hub/control/roleaggregation"
	"petrel.dev/petrel/hub/objects"
	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/hub/registry/registrytest"
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

func (v *countedVerbs) Connect(context.Context, resource.Target, runtime.Object) error {
	return v.none()
}

// living is what the authenticator finds: each account exists, each with one UID.
type living struct{}

func (living) CatchUp(context.Context) error { return nil }

func (living) Get(gvk kube.GVK, ns, name string) (kube.Object, bool) {
	return &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name, UID: "1"}}, gvk == kube.ServiceAccount
}

// callers are those of the table, besides the administrator: each is what the headers that it sets make of the administrator. The last
// three are bound to a role of that name in the namespace default; pi-1 is a node with a pod, "web", that uses objects called "used".
var callers = []struct {
	name   string
	header http.Header
}{
	{"pod", http.Header{"Impersonate-User": {"system:serviceaccount:default:default"}}},
	{"node", http.Header{"Impersonate-User": {"system:node:pi-1"}, "Impersonate-Group": {"system:nodes"}}},
	{"view", http.Header{"Impersonate-User": {"view"}}},
	{"edit", http.Header{"Impersonate-User": {"edit"}}},
	{"admin", http.Header{"Impersonate-User": {"admin"}}},
}

// accessPolicy is what a hub decides by that has the roles of every hub, aggregated, and what callers need.
func accessPolicy(t *testing.T) auth.Authorizer {
	t.Helper()
	store, kinds := registrytest.Store(t), registrytest.Kinds()
	cache := objects.New(objects.Config{Store: store, Kinds: kinds})
	client := registrytest.Start(t, registry.Config{Store: store, Kinds: kinds, Objects: cache}).Client()
	bootstrap(t, client)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- roleaggregation.New(client, nil).Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })
	objs := []kube.Object{
		&corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"},
			Spec: corev1.PodSpec{NodeName: "pi-1", ServiceAccountName: "used", Containers: []corev1.Container{{
				Name: "c", Image: "i", EnvFrom: []corev1.EnvFromSource{
					{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "used"}}},
					{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "used"}}},
				},
			}}},
		},
	}
	for _, role := range []string{"view", "edit", "admin"} {
		objs = append(objs, &rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: role},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
			Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: role}},
		})
	}
	for _, o := range objs {
		if _, err := client.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	authorizer, _ := policy(t, cache)
	lists := auth.Attributes{Resource: true, Verb: "list", Plural: "pods", Namespace: "default"}
	for ok := false; !ok; time.Sleep(time.Millisecond) { // until the roles are aggregated; the test's deadline bounds it
		ok = true
		for _, user := range []string{"view", "edit", "admin"} {
			may, _, err := authorizer.Authorize(t.Context(), auth.User{Name: user}, lists)
			ok = ok && may && err == nil
		}
	}
	return authorizer
}

// asAdmin sets the administrator's credentials on a request.
func asAdmin(t *testing.T, pki *auth.PKI) func(*http.Request) {
	admin, err := x509.ParseCertificate(clientTLS(t, pki).Certificates[0].Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	return func(r *http.Request) { r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{admin}} }
}

// routes are every path of every kind, and those that are no objects; some that do not exist.
func routes(kinds *resource.Kinds) (out []string) {
	out = []string{
		"/", "/api", "/api/", "/api/v1", "/apis", "/apis/apps", "/apis/apps/v1", "/healthz", "/livez", "/livez/ping", "/metrics", "/nowhere",
		"/openapi/v2", "/openapi/v3", "/openapi/v3/api/v1", "/openid/v1/jwks", "/.well-known/openid-configuration", "/readyz", "/version", "/version/x",
		"/api/v1/gadgets", "/api/v2/pods", "/apis/nope/v1/things", "/apis/apps/v1/namespaces/default/gadgets/x", "/debug/pprof/",
		"/apis/apiextensions.k8s.io/v1/customresourcedefinitions", "/apis/authentication.k8s.io/v1/selfsubjectreviews",
		"/api/v1/namespaces/default", "/api/v1/namespaces/default/status", // a binding in a Namespace covers the Namespace itself
		"/api/v1/watch/secrets", "/api/v1/watch/namespaces/default/secrets/x", "/api/v1/namespaces/kube-system/secrets/x",
		// What a node may reach.
		"/api/v1/nodes/pi-1", "/api/v1/nodes/pi-1/status", "/api/v1/namespaces/default/pods/web", "/api/v1/namespaces/default/pods/web/status",
		"/api/v1/namespaces/default/secrets/used", "/api/v1/namespaces/default/configmaps/used", "/api/v1/namespaces/default/serviceaccounts/used",
		"/api/v1/namespaces/default/serviceaccounts/used/token", "/apis/storage.k8s.io/v1/csinodes/pi-1",
		"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/pi-1", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/pi-2",
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

// TestAccessTable asks for every route with every method as a stranger, a pod, a node and users with the usual roles, and compares
// with testdata/access.txt who is let through. A new route must show up there before it can be merged. The administrator may do
// everything, and is not in the table; nobody else reaches the registry unless the table says so.
func TestAccessTable(t *testing.T) {
	t.Parallel()
	pki, err := auth.LoadPKI(filepath.Join(t.TempDir(), "pki"))
	if err != nil {
		t.Fatal(err)
	}
	kinds, verbs := builtin.New(), &countedVerbs{}
	handler, err := apiserver.New(apiserver.Config{
		Verbs: verbs, Kinds: kinds, Authenticator: auth.NewAuthenticator(pki, living{}), Authorizer: accessPolicy(t),
		OpenAPI: openapi.New(kinds), JWKS: pki.Tokens().JWKS,
	})
	if err != nil {
		t.Fatal(err)
	}
	admin := asAdmin(t, pki)
	ask := func(method, path string, credentials func(*http.Request), header http.Header) (code int, reached bool) {
		if method == "WATCH" {
			method, path = "GET", path+"?watch=true"
		}
		r := httptest.NewRequest(method, path, strings.NewReader("{}"))
		credentials(r)
		maps.Copy(r.Header, header)
		w := httptest.NewRecorder()
		before := verbs.calls
		handler.ServeHTTP(w, r)
		return w.Code, verbs.calls != before
	}
	var b strings.Builder
	for _, path := range routes(kinds) {
		var order []string // of who is let through
		methods := map[string][]string{}
		for _, m := range []string{"GET", "HEAD", "WATCH", "POST", "PUT", "PATCH", "DELETE", "BREW"} {
			var who []string
			if code, reached := ask(m, path, func(*http.Request) {}, nil); code != 401 {
				who = append(who, "nobody")
				if reached {
					t.Errorf("%s %s of a stranger reached the registry", m, path)
				}
			}
			for _, c := range callers {
				switch code, reached := ask(m, path, admin, c.header); {
				case code == 401, code == 403 && reached:
					t.Errorf("%s %s of %s: %d", m, path, c.name, code)
				case code != 403:
					who = append(who, c.name)
				}
			}
			if code, _ := ask(m, path, admin, nil); code == 401 || code == 403 {
				t.Errorf("%s %s of the administrator: %d", m, path, code)
			}
			if len(who) > 0 {
				all := strings.Join(who, " ")
				if methods[all] == nil {
					order = append(order, all)
				}
				methods[all] = append(methods[all], m)
			}
		}
		if order == nil {
			fmt.Fprintf(&b, "%s: -\n", path)
		}
		for _, who := range order {
			fmt.Fprintf(&b, "%s %s: %s\n", path, strings.Join(methods[who], ","), who)
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
	full := apiserver.Config{Verbs: &countedVerbs{}, Kinds: kinds, Authenticator: new(auth.Credentials), Authorizer: auth.Union{auth.Masters{}}}
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
	asAdmin(t, h.pki)(r)
	w := httptest.NewRecorder()
	if handler.ServeHTTP(w, r); w.Code != 500 || verbs.calls != 0 {
		t.Errorf("%d %s, %d calls", w.Code, w.Body, verbs.calls)
	}
}

// A request to be treated as another user is served with that user's rights, or refused: never with the client's own.
func TestImpersonation(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	for _, test := range []struct {
		path, header string
		code         int
		text         string
	}{
		{configMaps, "Impersonate-User: jane", 403, `configmaps is forbidden: User \"jane\" cannot list resource \"configmaps\" in API group \"\" in the namespace \"default\"`},
		{configMaps, "impersonate-user: petrel", 403, `User \"petrel\"`},
		{configMaps, "Impersonate-Group: system:masters", 400, "without impersonating a user name"},
		{configMaps, "Impersonate-Uid: 1", 400, "without impersonating a user name"},
		{configMaps, "Impersonate-Extra-Reason: x", 400, "without impersonating a user name"},
		{configMaps, "Impersonate-User: ", 400, "without impersonating a user name"},
		{configMaps, "Impersonate-Everything: jane", 400, "there is no header"},
		{"/readyz", "Impersonate-Group: x", 400, "without impersonating a user name"},
		{"/version", "Impersonate-Group: x", 400, "without impersonating a user name"},
		{"/version", "Impersonate-User: jane", 200, "gitVersion"},
		{"/metrics", "Impersonate-User: jane", 403, `User \"jane\" cannot get path \"/metrics\"`},
	} {
		if a := h.do("GET", test.path, "", test.header); a.code != test.code || !strings.Contains(a.body, test.text) {
			t.Errorf("%s with %s: %d %s, want %d %s", test.path, test.header, a.code, a.body, test.code, test.text)
		}
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
		asAdmin(t, h.pki)(r)
		handler.ServeHTTP(httptest.NewRecorder(), r)
		if rec.last.Verb != want || rec.last.Subresource != sub {
			t.Errorf("%s: %+v, want %s", sub, rec.last, want)
		}
	}
}

// Requests ask for the rights that Kubernetes asks for: a Namespace is in itself, a list or watch of one name is about that object, and
// a deletion of many never is.
func TestRequestsAskForKubernetesRights(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	var rec recorded
	handler, err := apiserver.New(apiserver.Config{Verbs: &countedVerbs{}, Kinds: builtin.New(), Authenticator: auth.NewAuthenticator(h.pki, living{}), Authorizer: &rec})
	if err != nil {
		t.Fatal(err)
	}
	const pods, one = "/api/v1/namespaces/default/pods", "?fieldSelector=metadata.name%3Dx"
	for request, want := range map[string]string{
		"POST /api/v1/namespaces":                             "create namespaces /",
		"GET /api/v1/namespaces/shop":                         "get namespaces shop/shop",
		"PUT /api/v1/namespaces/shop/finalize":                "update namespaces/finalize shop/shop",
		"GET /api/v1/namespaces" + one:                        "list namespaces /x",
		"GET " + pods + "/x":                                  "get pods default/x",
		"GET " + pods + one:                                   "list pods default/x",
		"GET " + pods + one + "&watch=1":                      "watch pods default/x",
		"GET " + pods + one + "%2Fy":                          "list pods default/",
		"GET " + pods + "?watch":                              "watch pods default/",
		"GET " + pods + "?watch=True":                         "watch pods default/",
		"GET " + pods + "?watch=False":                        "list pods default/",
		"GET " + pods + "?watch=0":                            "list pods default/",
		"GET " + pods + "/x?watch=true":                       "get pods default/x",
		"GET /api/v1/watch/namespaces/default/pods/x?watch=0": "watch pods default/x",
		"GET /apis/x.dev/v1/widgets/a?watch=true":             "get widgets /a",
		"DELETE " + pods + one:                                "deletecollection pods default/",
		"GET /apis/x.dev/v1/widgets" + one:                    "list widgets /x",
		"GET /apis/x.dev/v1/watch/widgets" + one:              "watch widgets /x",
		"DELETE /apis/x.dev/v1/widgets" + one:                 "deletecollection widgets /",
		"GET /apis/x.dev/v1/namespaces/a/widgets":             "list widgets a/",
	} {
		method, path, _ := strings.Cut(request, " ")
		r := httptest.NewRequest(method, path, nil)
		asAdmin(t, h.pki)(r)
		handler.ServeHTTP(httptest.NewRecorder(), r)
		a := rec.last
		what := a.Plural
		if a.Subresource != "" {
			what += "/" + a.Subresource
		}
		if got := fmt.Sprintf("%s %s %s/%s", a.Verb, what, a.Namespace, a.Name); got != want {
			t.Errorf("%s asks for %q, want %q", request, got, want)
		}
	}
}
