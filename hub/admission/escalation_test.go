package admission_test

import (
	"context"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/admission"
	"petrel.dev/petrel/hub/auth"
	"petrel.dev/petrel/hub/auth/rbac"
	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/objects"
	"petrel.dev/petrel/hub/quota"
	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/hub/registry/registrytest"
	"petrel.dev/petrel/hub/resource/builtin"
	"petrel.dev/petrel/internal/kube"
)

// clients returns a registry's clients, by user, whose writes pass the whole chain, which decides by the stored roles.
func clients(t *testing.T) (as func(name string, groups ...string) control.Client) {
	t.Helper()
	store, kinds := registrytest.Store(t), builtin.New()
	view := objects.New(objects.Config{Store: store, Kinds: kinds})
	rights := rbac.New(view)
	chain, err := admission.New(admission.Config{Objects: view, Authorizer: auth.Union{auth.Masters{}, rights}, Rights: rights, Ledger: quota.NewLedger(view, kinds.OfResource)})
	if err != nil {
		t.Fatal(err)
	}
	r := registrytest.Start(t, registry.Config{Store: store, Kinds: kinds, Objects: view, Admission: chain})
	return func(name string, groups ...string) control.Client {
		return r.ClientAs(auth.Component{User: auth.User{Name: name, Groups: groups}, Manager: "test"})
	}
}

func ruleOf(verb string, resources ...string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{Verbs: []string{verb}, APIGroups: []string{""}, Resources: resources}
}

func roleOf(name string, rules ...rbacv1.PolicyRule) *rbacv1.Role {
	return &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name}, Rules: rules}
}

func clusterRoleOf(name string, rules ...rbacv1.PolicyRule) *rbacv1.ClusterRole {
	return &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: rules}
}

func bindingOf(name, kind, role, user string) *rbacv1.RoleBinding {
	return &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name},
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: kind, Name: role}, Subjects: []rbacv1.Subject{{Kind: "User", APIGroup: rbacv1.GroupName, Name: user}}}
}

func clusterBindingOf(name, role, user string) *rbacv1.ClusterRoleBinding {
	b := bindingOf(name, "ClusterRole", role, user)
	return &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: name}, RoleRef: b.RoleRef, Subjects: b.Subjects}
}

// TestEscalation checks that nobody gives more than they have, by creating or changing roles and bindings: jane reads pods in one
// namespace; root has everything by a role, the right to escalate too, and is no master; the others may escalate or bind one role.
func TestEscalation(t *testing.T) {
	as := clients(t)
	master := as("system:apiserver", "system:masters")
	special := func(verb, plural, name string) rbacv1.PolicyRule {
		return rbacv1.PolicyRule{Verbs: []string{verb}, APIGroups: []string{rbacv1.GroupName}, Resources: []string{plural}, ResourceNames: []string{name}}
	}
	all := rbacv1.PolicyRule{Verbs: []string{"*"}, APIGroups: []string{"*"}, Resources: []string{"*"}}
	aggregated := clusterRoleOf("gathered")
	aggregated.AggregationRule = &rbacv1.AggregationRule{ClusterRoleSelectors: []metav1.LabelSelector{{MatchLabels: map[string]string{"x": "y"}}}}
	for _, o := range []kube.Object{
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ns"}},
		clusterRoleOf("reader", ruleOf("get", "pods")), clusterRoleOf("all", all), aggregated.DeepCopy(), clusterRoleOf("one"),
		roleOf("reader", ruleOf("get", "pods")), roleOf("secrets", ruleOf("get", "secrets")),
		clusterRoleOf("binds", special("bind", "clusterroles", "all")), clusterRoleOf("escalates", special("escalate", "clusterroles", "one")),
		bindingOf("jane", "Role", "reader", "jane"), clusterBindingOf("root", "all", "root"), clusterBindingOf("binder", "binds", "binder"),
		clusterBindingOf("escalator", "escalates", "escalator"), bindingOf("local", "ClusterRole", "binds", "local"),
	} {
		mustCreate(t, master, o)
	}
	const grant = ` is attempting to grant RBAC permissions not currently held:` + "\n"
	for _, test := range []struct {
		user string
		obj  kube.Object
		want string // the refusal; "": none
	}{
		{"jane", roleOf("mine", ruleOf("get", "pods")), ""},
		{"jane", roleOf("more", ruleOf("get", "pods", "secrets")), `roles.rbac.authorization.k8s.io "more" is forbidden: user "jane" (groups=["ops"])` + grant + `{APIGroups:[""], Resources:["secrets"], Verbs:["get"]}`},
		{"jane", clusterRoleOf("mine", ruleOf("get", "pods")), `clusterroles.rbac.authorization.k8s.io "mine" is forbidden: user "jane" (groups=["ops"])` + grant + `{APIGroups:[""], Resources:["pods"], Verbs:["get"]}`},
		{"jane", clusterRoleOf("nothing"), ""},
		{"jane", bindingOf("b1", "Role", "reader", "john"), ""},
		{"jane", bindingOf("b2", "ClusterRole", "reader", "john"), ""},
		{"jane", bindingOf("b3", "Role", "secrets", "jane"), `rolebindings.rbac.authorization.k8s.io "b3" is forbidden: user "jane" (groups=["ops"])` + grant + `{APIGroups:[""], Resources:["secrets"], Verbs:["get"]}`},
		{"jane", bindingOf("b4", "Role", "missing", "jane"), `role.rbac.authorization.k8s.io "missing" not found`},
		{"jane", clusterBindingOf("b5", "reader", "jane"), `clusterrolebindings.rbac.authorization.k8s.io "b5" is forbidden: user "jane" (groups=["ops"])` + grant + `{APIGroups:[""], Resources:["pods"], Verbs:["get"]}`},
		{"root", clusterRoleOf("everything", all), ""},
		{"root", clusterBindingOf("b6", "all", "john"), ""},
		{"jane", func() kube.Object { r := aggregated.DeepCopy(); r.Name = "g2"; return r }(),
			`clusterroles.rbac.authorization.k8s.io "g2" is forbidden: must have cluster-admin privileges to use the aggregationRule`},
		{"binder", clusterBindingOf("b7", "all", "john"), ""},
		{"binder", clusterBindingOf("b8", "reader", "binder"), `clusterrolebindings.rbac.authorization.k8s.io "b8" is forbidden: user "binder" (groups=["ops"])` + grant + `{APIGroups:[""], Resources:["pods"], Verbs:["get"]}`},
		{"local", bindingOf("b9", "ClusterRole", "all", "john"), ""},
		{"local", clusterBindingOf("b10", "all", "local"), `clusterrolebindings.rbac.authorization.k8s.io "b10" is forbidden: user "local" (groups=["ops"])` + grant + `{APIGroups:["*"], Resources:["*"], Verbs:["*"]}`},
		{"escalator", clusterRoleOf("another", all), `clusterroles.rbac.authorization.k8s.io "another" is forbidden: user "escalator" (groups=["ops"])` + grant + `{APIGroups:["*"], Resources:["*"], Verbs:["*"]}`},
	} {
		_, err := as(test.user, "ops").Create(t.Context(), test.obj)
		if got := message(err); got != test.want {
			t.Errorf("%s makes %s: %s\nwant %s", test.user, test.obj.GetName(), got, test.want)
		}
	}
	for _, test := range []struct {
		what, user, name string
		change           func(*rbacv1.ClusterRole)
		allowed          bool
	}{
		{"add a rule", "jane", "one", func(r *rbacv1.ClusterRole) { r.Rules = []rbacv1.PolicyRule{all} }, false},
		{"add a rule, and may escalate", "escalator", "one", func(r *rbacv1.ClusterRole) { r.Rules = []rbacv1.PolicyRule{all} }, true},
		{"take the aggregation away", "jane", "gathered", func(r *rbacv1.ClusterRole) { r.AggregationRule = nil }, false},
		{"take the aggregation away, and may escalate", "root", "gathered", func(r *rbacv1.ClusterRole) { r.AggregationRule = nil }, true},
		{"change a label of more than one has", "jane", "reader", func(r *rbacv1.ClusterRole) { r.Labels = map[string]string{"x": "y"} }, false},
		{"let go of a finalizer", "jane", "reader", func(r *rbacv1.ClusterRole) {
			r.Finalizers, r.OwnerReferences = []string{"x/y"}, []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: "n", UID: "u"}}
		}, true},
		{"take rules away", "jane", "all", func(r *rbacv1.ClusterRole) { r.Rules = nil }, true},
	} {
		c := as(test.user, "ops")
		if err := c.CatchUp(t.Context()); err != nil {
			t.Fatal(err)
		}
		old, ok := control.Get[*rbacv1.ClusterRole](c, kube.ClusterRole, "", test.name)
		if !ok {
			t.Fatal(test.name)
		}
		next := old.DeepCopy()
		test.change(next)
		if _, err := c.Update(t.Context(), next, ""); (err == nil) != test.allowed {
			t.Errorf("%s %s: %v", test.user, test.what, err)
		}
	}
}

// A chain that cannot decide who may grant what lets nobody grant anything, but system:masters.
func TestWithoutRightsNobodyGrants(t *testing.T) {
	kinds := builtin.New()
	view := objects.New(objects.Config{Store: registrytest.Store(t), Kinds: kinds})
	chain, err := admission.New(admission.Config{Objects: view, Ledger: quota.NewLedger(view, kinds.OfResource)})
	if err != nil {
		t.Fatal(err)
	}
	k, _ := builtin.New().Lookup(kube.ClusterRole)
	a := &registry.AdmissionRequest{Operation: registry.OpCreate, Object: clusterRoleOf("nothing")}
	a.Kind = k
	if err := chain.Validate(context.Background(), a); err == nil {
		t.Error("a role without rules was let through")
	}
	a.User = auth.User{Groups: []string{"system:masters"}}
	if err := chain.Validate(context.Background(), a); err != nil {
		t.Error(err)
	}
}

func message(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
