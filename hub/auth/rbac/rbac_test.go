package rbac

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/auth"
	"petrel.dev/petrel/hub/resource/bootstrappolicy"
	"petrel.dev/petrel/internal/kube"
)

// stored are objects that the authorizer reads. late ones show after CatchUp.
type stored struct {
	objs    []kube.Object
	late    []kube.Object
	version uint64
	behind  error // what CatchUp returns
}

func (s *stored) List(gvk kube.GVK, _ string) (out []kube.Object) {
	for _, o := range s.objs {
		if o.GetObjectKind().GroupVersionKind() == gvk {
			out = append(out, o)
		}
	}
	return out
}

func (s *stored) Version(kube.GVK) uint64 { return s.version }

func (s *stored) CatchUp(context.Context) error {
	if s.late != nil {
		s.objs, s.late, s.version = append(s.objs, s.late...), nil, s.version+1
	}
	return s.behind
}

func clusterRole(name string, rules ...rbacv1.PolicyRule) kube.Object {
	return &rbacv1.ClusterRole{TypeMeta: typeOf(kube.ClusterRole), ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: rules}
}

func role(namespace, name string, rules ...rbacv1.PolicyRule) kube.Object {
	return &rbacv1.Role{TypeMeta: typeOf(kube.Role), ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Rules: rules}
}

func clusterBinding(name, role string, subjects ...rbacv1.Subject) kube.Object {
	return &rbacv1.ClusterRoleBinding{TypeMeta: typeOf(kube.ClusterRoleBinding), ObjectMeta: metav1.ObjectMeta{Name: name},
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role}, Subjects: subjects}
}

// binding binds to "Role/NAME" or "ClusterRole/NAME".
func binding(namespace, name, ref string, subjects ...rbacv1.Subject) kube.Object {
	kind, role, _ := strings.Cut(ref, "/")
	return &rbacv1.RoleBinding{TypeMeta: typeOf(kube.RoleBinding), ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: kind, Name: role}, Subjects: subjects}
}

func typeOf(gvk kube.GVK) metav1.TypeMeta {
	return metav1.TypeMeta{APIVersion: gvk.GroupVersion().String(), Kind: gvk.Kind}
}

func user(name string) rbacv1.Subject  { return rbacv1.Subject{Kind: "User", Name: name} }
func group(name string) rbacv1.Subject { return rbacv1.Subject{Kind: "Group", Name: name} }
func account(namespace, name string) rbacv1.Subject {
	return rbacv1.Subject{Kind: "ServiceAccount", Namespace: namespace, Name: name}
}

// rule is "VERBS RESOURCES [GROUPS [NAMES]]", lists with commas, "core" for the core group; or "VERBS /PATHS".
func rule(text string) (r rbacv1.PolicyRule) {
	f := strings.Fields(text)
	r.Verbs = strings.Split(f[0], ",")
	if strings.HasPrefix(f[1], "/") {
		r.NonResourceURLs = strings.Split(f[1], ",")
		return r
	}
	r.Resources, r.APIGroups = strings.Split(f[1], ","), []string{""}
	if len(f) > 2 {
		r.APIGroups = strings.Split(strings.ReplaceAll(f[2], "core", ""), ",")
	}
	if len(f) > 3 {
		r.ResourceNames = strings.Split(f[3], ",")
	}
	return r
}

// ask is "VERB RESOURCE[/SUBRESOURCE][.GROUP] [NAMESPACE/][NAME]", or "VERB /PATH".
func ask(text string) auth.Attributes {
	f := append(strings.Fields(text), "")
	a := auth.Attributes{Verb: f[0], APIVersion: "v1"}
	if strings.HasPrefix(f[1], "/") {
		a.Path = f[1]
		return a
	}
	a.Resource = true
	a.Plural, a.APIGroup, _ = strings.Cut(f[1], ".")
	a.Plural, a.Subresource, _ = strings.Cut(a.Plural, "/")
	if namespace, name, ok := strings.Cut(f[2], "/"); ok {
		a.Namespace, a.Name = namespace, name
	} else {
		a.Name = f[2]
	}
	return a
}

// TestAuthorize shows what rules match, whom bindings are for, and how a decision is explained.
func TestAuthorize(t *testing.T) {
	z := New(&stored{objs: []kube.Object{
		clusterRole("reader", rule("get,list pods,pods/log"), rule("get /metrics,/logs/*")),
		clusterRole("scaler", rule("update */scale *"), rule("get deployments apps web,shop")),
		clusterRole("all", rule("* * *"), rule("* /*")),
		role("shop", "seller", rule("create configmaps")),
		clusterBinding("readers", "reader", user("jane"), group("ops")),
		clusterBinding("gone", "missing", user("lost")),
		clusterBinding("no-namespace", "all", rbacv1.Subject{Kind: "ServiceAccount", Name: "robot"}),
		clusterBinding("nonsense", "all", rbacv1.Subject{Kind: "Machine", Name: "jane"}),
		binding("shop", "scalers", "ClusterRole/scaler", account("", "robot"), account("tools", "cd")),
		binding("shop", "sellers", "Role/seller", user("system:serviceaccount:tools:cd"), user("lost")),
		binding("bank", "sellers", "Role/seller", user("jane")),
		binding("shop", "owners", "ClusterRole/all", group("owners"), user("olga")),
	}})
	for _, test := range []struct{ who, ask, want string }{
		{"jane", "get pods shop/a", `RBAC: allowed by ClusterRoleBinding "readers" of ClusterRole "reader" to User "jane"`},
		{"jane", "get pods", `RBAC: allowed by ClusterRoleBinding "readers" of ClusterRole "reader" to User "jane"`},
		{"jane", "get pods/log shop/a", `RBAC: allowed by ClusterRoleBinding "readers" of ClusterRole "reader" to User "jane"`},
		{"jane", "get pods/exec shop/a", "no"},
		{"jane", "delete pods shop/a", "no"},
		{"jane", "get pods.metrics.k8s.io shop/a", "no"},
		{"jane", "get /metrics", `RBAC: allowed by ClusterRoleBinding "readers" of ClusterRole "reader" to User "jane"`},
		{"jane", "get /logs/a/b", `RBAC: allowed by ClusterRoleBinding "readers" of ClusterRole "reader" to User "jane"`},
		{"jane", "get /logs", "no"},
		{"jane", "get /metrics/slis", "no"},
		{"jane", "get secrets bank/a", `no RBAC: role.rbac.authorization.k8s.io "seller" not found`},
		{"john+ops", "list pods shop/", `RBAC: allowed by ClusterRoleBinding "readers" of ClusterRole "reader" to Group "ops"`},
		{"ops", "list pods shop/", "no"},
		{"lost", "get pods shop/a", `no RBAC: clusterrole.rbac.authorization.k8s.io "missing" not found`},
		{"lost", "create configmaps shop/", `RBAC: allowed by RoleBinding "sellers/shop" of Role "seller" to User "lost"`},
		{"system:serviceaccount:shop:robot", "update deployments/scale.apps shop/a", `RBAC: allowed by RoleBinding "scalers/shop" of ClusterRole "scaler" to ServiceAccount "robot/shop"`},
		{"system:serviceaccount:shop:robot", "update deployments.apps shop/a", "no"},
		{"system:serviceaccount:shop:robot", "get deployments.apps shop/web", `RBAC: allowed by RoleBinding "scalers/shop" of ClusterRole "scaler" to ServiceAccount "robot/shop"`},
		{"system:serviceaccount:shop:robot", "get deployments.apps shop/bank", "no"},
		{"system:serviceaccount:shop:robot", "list deployments.apps shop/", "no"},
		{"system:serviceaccount:shop:robot", "update deployments/scale.apps bank/a", "no"},
		{"system:serviceaccount:tools:cd", "update deployments/scale.apps shop/a", `RBAC: allowed by RoleBinding "scalers/shop" of ClusterRole "scaler" to ServiceAccount "cd/tools"`},
		{"system:serviceaccount:tools:cd", "create configmaps shop/", `RBAC: allowed by RoleBinding "sellers/shop" of Role "seller" to User "system:serviceaccount:tools:cd"`},
		{"olga+owners", "delete secrets shop/a", `RBAC: allowed by RoleBinding "owners/shop" of ClusterRole "all" to Group "owners"`},
		{"olga", "delete secrets", "no"},
		{"olga", "get /metrics", "no"},
		{"", "get pods shop/a", "no"},
	} {
		name, groups, _ := strings.Cut(test.who, "+")
		allowed, reason, err := z.Authorize(t.Context(), auth.User{Name: name, Groups: []string{groups}}, ask(test.ask))
		got := reason
		if !allowed {
			got = strings.TrimSpace("no " + reason)
		}
		if err != nil || got != test.want {
			t.Errorf("%s: %s: %s %v, want %s", test.who, test.ask, got, err, test.want)
		}
	}
}

// TestJustBound checks that what was committed before a request counts for it, and that without the cache's help nothing is allowed.
func TestJustBound(t *testing.T) {
	s := &stored{objs: []kube.Object{clusterRole("reader", rule("get pods"))}}
	z := New(s)
	may := func() bool {
		ok, _, _ := z.Authorize(t.Context(), auth.User{Name: "jane"}, ask("get pods a/b"))
		return ok
	}
	if may() {
		t.Error("allowed without a binding")
	}
	s.late = []kube.Object{clusterBinding("b", "reader", user("jane"))}
	if !may() {
		t.Error("refused with a binding that exists")
	}
	s.objs, s.version = s.objs[:1], s.version+1
	if may() {
		t.Error("allowed by a binding that is gone")
	}
	s.late, s.behind = []kube.Object{clusterBinding("b", "reader", user("jane"))}, context.DeadlineExceeded
	if may() {
		t.Error("allowed by a cache that is behind")
	}
}

// TestRulesForAgreesWithAuthorize checks for each sort of user, with the roles that a hub starts with, that what is listed is allowed, and
// that the list is the whole of it.
func TestRulesForAgreesWithAuthorize(t *testing.T) {
	const reviews = "create authentication.k8s.io [selfsubjectreviews], create authorization.k8s.io [selfsubjectaccessreviews selfsubjectrulesreviews]"
	policy := auth.Union{auth.Masters{}, New(&stored{objs: bootstrappolicy.Objects()})}
	for _, test := range []struct {
		name      string
		groups    []string
		resources string
		paths     string
	}{
		{"anonymous", auth.Anonymous.Groups, "", "/healthz /livez /readyz /version /version/"},
		{"a user", []string{"system:authenticated"}, reviews,
			"/api /api/* /apis /apis/* /healthz /livez /openapi /openapi/* /readyz /version /version/"},
		{"a pod", []string{"system:serviceaccounts", "system:authenticated"}, reviews,
			"/.well-known/openid-configuration /.well-known/openid-configuration/ /api /api/* /apis /apis/* /healthz /livez /openapi /openapi/* " +
				"/openid/v1/jwks /openid/v1/jwks/ /readyz /version /version/"},
		{"the administrator", []string{"system:masters", "system:authenticated"}, "* * [*], " + reviews,
			"* /api /api/* /apis /apis/* /healthz /livez /openapi /openapi/* /readyz /version /version/"},
	} {
		t.Run(test.name, func(t *testing.T) {
			u := auth.User{Name: "u", Groups: test.groups}
			allows := func(a auth.Attributes) bool {
				ok, _, err := policy.Authorize(t.Context(), u, a)
				return ok && err == nil
			}
			listed := policy.RulesFor(t.Context(), u, "default")
			var resources, paths []string
			for _, r := range listed.ResourceRules {
				resources = append(resources, fmt.Sprintf("%s %s %s", strings.Join(r.Verbs, ","), strings.Join(r.APIGroups, ","), r.Resources))
				for _, plural := range r.Resources {
					if !allows(auth.Attributes{Resource: true, Verb: r.Verbs[0], APIGroup: r.APIGroups[0], Plural: plural}) {
						t.Errorf("%+v is listed and refused", r)
					}
				}
			}
			for _, r := range listed.NonResourceRules {
				paths = append(paths, r.NonResourceURLs...)
				for _, path := range r.NonResourceURLs {
					if !allows(auth.Attributes{Verb: r.Verbs[0], Path: strings.ReplaceAll(path, "*", "x")}) {
						t.Errorf("%s is listed and refused", path)
					}
				}
			}
			slices.Sort(resources)
			slices.Sort(paths)
			if diff := cmp.Diff(test.resources, strings.Join(slices.Compact(resources), ", ")) + cmp.Diff(test.paths, strings.Join(slices.Compact(paths), " ")); diff != "" {
				t.Error(diff)
			}
			if listed.ResourceRules == nil || listed.NonResourceRules == nil || listed.Incomplete || listed.EvaluationError != "" {
				t.Errorf("clients expect complete lists, not null: %+v", listed)
			}
			if slices.Contains(paths, "*") {
				return
			}
			for _, a := range []auth.Attributes{
				{Resource: true, Verb: "create", APIGroup: "authentication.k8s.io", Plural: "tokenreviews"},
				{Resource: true, Verb: "create", APIGroup: "authorization.k8s.io", Plural: "subjectaccessreviews"},
				{Resource: true, Verb: "create", APIGroup: "authorization.k8s.io", Plural: "localsubjectaccessreviews"},
				{Resource: true, Verb: "get", Plural: "pods"},
				{Verb: "get", Path: "/metrics"},
			} {
				if allows(a) {
					t.Errorf("%+v is allowed and not listed", a)
				}
			}
		})
	}
}
