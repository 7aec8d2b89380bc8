package rbac

import (
	"context"
	"fmt"
	"slices"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	apiuser "k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	genericapirequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/kubernetes/pkg/registry/rbac/validation"
	upstream "k8s.io/kubernetes/plugin/pkg/auth/authorizer/rbac"
	"pgregory.net/rapid"

	"petrel.dev/petrel/hub/auth"
	"petrel.dev/petrel/internal/kube"
)

// world is a policy as both authorizers see it.
type world struct {
	ours     *Authorizer
	theirs   *upstream.RBACAuthorizer
	resolver validation.AuthorizationRuleResolver
}

func pick(t *rapid.T, what string, from ...string) string {
	return rapid.SampledFrom(from).Draw(t, what)
}

// some draws a list of up to three, which may repeat.
func some(t *rapid.T, what string, least int, from ...string) []string {
	return rapid.SliceOfN(rapid.SampledFrom(from), least, 3).Draw(t, what)
}

var (
	users      = []string{"jane", "john", "system:serviceaccount:shop:robot", "system:serviceaccount:bank:robot"}
	groups     = []string{"ops", "devs", "system:authenticated"}
	namespaces = []string{"shop", "bank"}
	roleNames  = []string{"a", "b", "c"}
	verbs      = []string{"get", "list", "create"}
	plurals    = []string{"pods", "secrets"}
	apiGroups  = []string{"", "apps"}
	names      = []string{"x", "y"}
)

func drawRules(t *rapid.T) (rules []rbacv1.PolicyRule) {
	for range rapid.IntRange(0, 3).Draw(t, "rules") {
		if rapid.Bool().Draw(t, "path") {
			rules = append(rules, rbacv1.PolicyRule{Verbs: some(t, "verbs", 1, append(verbs, "*")...), NonResourceURLs: some(t, "paths", 1, "/a", "/a/*", "/a/b", "*", "/a*")})
			continue
		}
		rules = append(rules, rbacv1.PolicyRule{
			Verbs: some(t, "verbs", 1, append(verbs, "*")...), APIGroups: some(t, "groups", 1, append(apiGroups, "*")...),
			Resources: some(t, "resources", 1, append(plurals, "pods/log", "*/log", "*", "*/scale")...), ResourceNames: some(t, "names", 0, names...),
		})
	}
	return rules
}

func drawSubjects(t *rapid.T) (subjects []rbacv1.Subject) {
	for range rapid.IntRange(0, 3).Draw(t, "subjects") {
		switch pick(t, "kind", "User", "Group", "ServiceAccount") {
		case "User":
			subjects = append(subjects, rbacv1.Subject{Kind: "User", Name: pick(t, "user", users...)})
		case "Group":
			subjects = append(subjects, rbacv1.Subject{Kind: "Group", Name: pick(t, "group", groups...)})
		default:
			subjects = append(subjects, rbacv1.Subject{Kind: "ServiceAccount", Name: "robot", Namespace: pick(t, "namespace", append(namespaces, "")...)})
		}
	}
	return subjects
}

func drawWorld(t *rapid.T) world {
	var s stored
	var roles []*rbacv1.Role
	var clusterRoles []*rbacv1.ClusterRole
	var bindings []*rbacv1.RoleBinding
	var clusterBindings []*rbacv1.ClusterRoleBinding
	for _, name := range roleNames[:rapid.IntRange(0, 3).Draw(t, "cluster roles")] {
		r := clusterRole(name, drawRules(t)...).(*rbacv1.ClusterRole)
		s.objs, clusterRoles = append(s.objs, r), append(clusterRoles, r)
	}
	for _, namespace := range namespaces {
		for _, name := range roleNames[:rapid.IntRange(0, 3).Draw(t, "roles")] {
			r := role(namespace, name, drawRules(t)...).(*rbacv1.Role)
			s.objs, roles = append(s.objs, r), append(roles, r)
		}
		for i := range rapid.IntRange(0, 3).Draw(t, "bindings") {
			ref := pick(t, "kind", "Role", "ClusterRole", "Other") + "/" + pick(t, "role", roleNames...)
			b := binding(namespace, fmt.Sprint("b", i), ref, drawSubjects(t)...).(*rbacv1.RoleBinding)
			s.objs, bindings = append(s.objs, b), append(bindings, b)
		}
	}
	for i := range rapid.IntRange(0, 3).Draw(t, "cluster bindings") {
		b := clusterBinding(fmt.Sprint("b", i), pick(t, "role", roleNames...), drawSubjects(t)...).(*rbacv1.ClusterRoleBinding)
		s.objs, clusterBindings = append(s.objs, kube.Object(b)), append(clusterBindings, b)
	}
	resolver, static := validation.NewTestRuleResolver(roles, bindings, clusterRoles, clusterBindings)
	return world{ours: New(&s), theirs: upstream.New(static, static, static, static), resolver: resolver}
}

// TestDecidesAsUpstream compares with upstream's authorizer: what is allowed, by which rules, and what may be granted.
func TestDecidesAsUpstream(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		u := auth.User{Name: pick(t, "user", users...), Groups: some(t, "groups", 0, groups...)}
		info := &apiuser.DefaultInfo{Name: u.Name, Groups: u.Groups}
		for range 10 {
			a := auth.Attributes{Verb: pick(t, "verb", verbs...), Path: pick(t, "path", "/a", "/a/b", "/ab", "/")}
			if rapid.Bool().Draw(t, "resource") {
				a = auth.Attributes{
					Resource: true, Verb: a.Verb, APIGroup: pick(t, "group", apiGroups...), APIVersion: "v1", Plural: pick(t, "resource", plurals...),
					Subresource: pick(t, "subresource", "", "log", "scale"), Namespace: pick(t, "namespace", append(namespaces, "")...),
					Name: pick(t, "name", append(names, "")...),
				}
			}
			record := authorizer.AttributesRecord{
				User: info, Verb: a.Verb, Namespace: a.Namespace, APIGroup: a.APIGroup, APIVersion: a.APIVersion, Resource: a.Plural,
				Subresource: a.Subresource, Name: a.Name, ResourceRequest: a.Resource, Path: a.Path,
			}
			want, _, _ := w.theirs.Authorize(context.Background(), record)
			if got, reason, err := w.ours.Authorize(context.Background(), u, a); err != nil || got != (want == authorizer.DecisionAllow) {
				t.Fatalf("%s of %v: %v %q %v, upstream decides %v", u.Name, a, got, reason, err, want)
			}
		}
		namespace := pick(t, "namespace", append(namespaces, "")...)
		theirs, _ := w.resolver.RulesFor(context.Background(), info, namespace)
		ours, _ := w.ours.rules(context.Background(), u, namespace)
		text := func(rules []rbacv1.PolicyRule) (out []string) {
			for _, r := range rules {
				out = append(out, r.String())
			}
			slices.Sort(out)
			return out
		}
		if !slices.Equal(text(ours), text(theirs)) {
			t.Fatalf("rules of %v in %q: %v, upstream has %v", u, namespace, ours, theirs)
		}
		grant := drawRules(t)
		ctx := genericapirequest.WithNamespace(genericapirequest.WithUser(context.Background(), info), namespace)
		want, got := validation.ConfirmNoEscalation(ctx, w.resolver, grant), w.ours.MayGrant(context.Background(), u, namespace, grant)
		if (want == nil) != (got == nil) {
			t.Fatalf("%v grants %v in %q: %v, upstream says %v", u, grant, namespace, got, want)
		}
	})
}

// TestRefusedGrant shows the refusal's text, and that it is upstream's.
func TestRefusedGrant(t *testing.T) {
	objs := []kube.Object{clusterRole("a", rule("get pods")), clusterBinding("b", "a", rbacv1.Subject{Kind: "User", Name: "jane"})}
	resolver, _ := validation.NewTestRuleResolver(nil, nil, []*rbacv1.ClusterRole{objs[0].(*rbacv1.ClusterRole)}, []*rbacv1.ClusterRoleBinding{objs[1].(*rbacv1.ClusterRoleBinding)})
	u := auth.User{Name: "jane", Groups: []string{"ops", "system:authenticated"}}
	ctx := genericapirequest.WithNamespace(genericapirequest.WithUser(t.Context(), &apiuser.DefaultInfo{Name: u.Name, Groups: u.Groups}), "")
	for _, test := range []struct {
		rules []rbacv1.PolicyRule
		want  string
	}{
		{[]rbacv1.PolicyRule{rule("get pods")}, "<nil>"},
		{[]rbacv1.PolicyRule{rule("get,list,watch pods"), rule("get secrets core x,y"), rule("get deployments apps"), rule("get /metrics")},
			`user "jane" (groups=["ops" "system:authenticated"]) is attempting to grant RBAC permissions not currently held:
{APIGroups:[""], Resources:["pods"], Verbs:["list" "watch"]}
{APIGroups:[""], Resources:["secrets"], ResourceNames:["x"], Verbs:["get"]}
{APIGroups:[""], Resources:["secrets"], ResourceNames:["y"], Verbs:["get"]}
{APIGroups:["apps"], Resources:["deployments"], Verbs:["get"]}
{NonResourceURLs:["/metrics"], Verbs:["get"]}`},
	} {
		got := fmt.Sprint(New(&stored{objs: objs}).MayGrant(t.Context(), u, "", test.rules))
		if upstream := fmt.Sprint(validation.ConfirmNoEscalation(ctx, resolver, test.rules)); got != test.want || got != upstream {
			t.Errorf("%s\nwant\n%s\nupstream\n%s", got, test.want, upstream)
		}
	}
}
