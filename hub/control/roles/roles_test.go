package roles

import (
	"slices"
	"testing"
	"testing/synctest"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/control/controltest"
	"petrel.dev/petrel/hub/resource/bootstrappolicy"
	"petrel.dev/petrel/internal/kube"
)

// start runs a controller as a hub that starts does, until all is up to date.
func start(t *testing.T, c *controltest.Client) {
	go func() { _ = New(Config{Client: c, Objects: bootstrappolicy.Objects}).Run(t.Context()) }()
	synctest.Wait()
}

func get[T kube.Object](t *testing.T, c *controltest.Client, gvk kube.GVK, namespace, name string) T {
	t.Helper()
	o, ok := control.Get[T](c, gvk, namespace, name)
	if !ok {
		t.Fatalf("no %s %s", gvk.Kind, name)
	}
	return o.DeepCopyObject().(T)
}

// TestRolesOfEveryCluster checks that the first start makes all roles at once, the second writes nothing, and that what an
// administrator changed meanwhile is completed, not undone.
func TestRolesOfEveryCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := controltest.New(t)
		start(t, c)
		for _, name := range []string{"cluster-admin", "admin", "edit", "view", "system:discovery", "system:controller:deployment-controller"} {
			get[*rbacv1.ClusterRole](t, c, kube.ClusterRole, "", name)
		}
		if all := len(bootstrappolicy.Objects()); all < 120 || c.Revision() == 0 {
			t.Errorf("%d objects, revision %d", all, c.Revision())
		}
		role := get[*rbacv1.Role](t, c, kube.Role, "kube-system", "extension-apiserver-authentication-reader")
		if role.Annotations[rbacv1.AutoUpdateAnnotationKey] != "true" || role.Labels["kubernetes.io/bootstrapping"] != "rbac-defaults" {
			t.Errorf("%+v", role.ObjectMeta)
		}
		before := c.Revision()
		start(t, c)
		if c.Revision() != before {
			t.Error("a second start writes")
		}

		discovery := get[*rbacv1.ClusterRole](t, c, kube.ClusterRole, "", "system:discovery")
		own := rbacv1.PolicyRule{Verbs: []string{"get"}, NonResourceURLs: []string{"/own"}}
		discovery.Rules, discovery.Labels = []rbacv1.PolicyRule{own}, map[string]string{"kubernetes.io/bootstrapping": "mine"}
		c.Put(discovery)
		basic := get[*rbacv1.ClusterRoleBinding](t, c, kube.ClusterRoleBinding, "", "system:basic-user")
		basic.Subjects = []rbacv1.Subject{{Kind: "User", APIGroup: rbacv1.GroupName, Name: "jane"}}
		c.Put(basic)
		viewer := get[*rbacv1.ClusterRoleBinding](t, c, kube.ClusterRoleBinding, "", "system:public-info-viewer")
		viewer.Subjects, viewer.Annotations = nil, map[string]string{rbacv1.AutoUpdateAnnotationKey: "false"}
		c.Put(viewer)
		moved := get[*rbacv1.RoleBinding](t, c, kube.RoleBinding, "kube-system", "system::leader-locking-kube-scheduler")
		moved.RoleRef.Name, moved.UID = "another", "old"
		c.Put(moved)
		edit := get[*rbacv1.ClusterRole](t, c, kube.ClusterRole, "", "edit")
		edit.AggregationRule.ClusterRoleSelectors = []metav1.LabelSelector{{MatchLabels: map[string]string{"x": "y"}}}
		c.Put(edit)
		start(t, c)

		discovery = get[*rbacv1.ClusterRole](t, c, kube.ClusterRole, "", "system:discovery")
		paths := func(r rbacv1.PolicyRule) string { return r.NonResourceURLs[0] }
		var have []string
		for _, r := range discovery.Rules {
			have = append(have, paths(r))
		}
		if !slices.Contains(have, "/own") || !slices.Contains(have, "/apis/*") || discovery.Labels["kubernetes.io/bootstrapping"] != "mine" {
			t.Errorf("system:discovery: %v %v", have, discovery.Labels)
		}
		if b := get[*rbacv1.ClusterRoleBinding](t, c, kube.ClusterRoleBinding, "", "system:basic-user"); len(b.Subjects) != 2 || b.Subjects[0].Name != "jane" {
			t.Errorf("system:basic-user: %+v", b.Subjects)
		}
		if b := get[*rbacv1.ClusterRoleBinding](t, c, kube.ClusterRoleBinding, "", "system:public-info-viewer"); len(b.Subjects) != 0 {
			t.Errorf("system:public-info-viewer was to be left alone: %+v", b.Subjects)
		}
		if b := get[*rbacv1.RoleBinding](t, c, kube.RoleBinding, "kube-system", "system::leader-locking-kube-scheduler"); b.RoleRef.Name == "another" || b.UID == "old" {
			t.Errorf("a binding to another role: %+v", b)
		}
		if r := get[*rbacv1.ClusterRole](t, c, kube.ClusterRole, "", "edit"); len(r.AggregationRule.ClusterRoleSelectors) != 2 {
			t.Errorf("edit: %+v", r.AggregationRule)
		}
	})
}
