package roleaggregation

import (
	"testing"
	"testing/synctest"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/control/controltest"
	"petrel.dev/petrel/internal/kube"
)

// TestAggregation checks that a role has the rules of those that it selects, each once, as they come, change and go; also of those that
// are aggregated themselves.
func TestAggregation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		role := func(name, label string, verbs ...string) *rbacv1.ClusterRole {
			r := &rbacv1.ClusterRole{TypeMeta: metav1.TypeMeta{APIVersion: "rbac.authorization.k8s.io/v1", Kind: "ClusterRole"},
				ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"to": label}}}
			for _, v := range verbs {
				r.Rules = append(r.Rules, rbacv1.PolicyRule{Verbs: []string{v}, APIGroups: []string{""}, Resources: []string{"pods"}})
			}
			return r
		}
		gathers := func(name, label, from string) *rbacv1.ClusterRole {
			r := role(name, label, "stale")
			r.AggregationRule = &rbacv1.AggregationRule{ClusterRoleSelectors: []metav1.LabelSelector{{MatchLabels: map[string]string{"to": from}}}}
			return r
		}
		c := controltest.New(t, gathers("edit", "", "edit"), gathers("view", "edit", "view"), role("b", "view", "get", "list"), role("a", "view", "list", "watch"), role("c", "edit", "update"))
		go func() { _ = New(c, nil).Run(t.Context()) }()
		check := func(name string, want ...string) {
			t.Helper()
			synctest.Wait()
			r, _ := control.Get[*rbacv1.ClusterRole](c, kube.ClusterRole, "", name)
			var have []string
			for _, rule := range r.Rules {
				have = append(have, rule.Verbs...)
			}
			if len(have) != len(want) {
				t.Fatalf("%s has %v, want %v", name, have, want)
			}
			for i := range want {
				if have[i] != want[i] {
					t.Fatalf("%s has %v, want %v", name, have, want)
				}
			}
		}
		check("view", "list", "watch", "get")
		check("edit", "update", "list", "watch", "get")
		before := c.Revision()
		synctest.Wait()
		if c.Revision() != before {
			t.Error("it goes on writing")
		}
		c.Put(role("d", "view", "patch"))
		check("edit", "update", "list", "watch", "get", "patch")
		if err := c.Delete(t.Context(), kube.ClusterRole, "", "a", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		check("edit", "update", "get", "list", "patch")
		edit, _ := control.Get[*rbacv1.ClusterRole](c, kube.ClusterRole, "", "edit")
		edit = edit.DeepCopy()
		edit.Rules = nil
		c.Put(edit)
		check("edit", "update", "get", "list", "patch")
	})
}
