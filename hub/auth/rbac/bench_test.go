package rbac

import (
	"fmt"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"

	"petrel.dev/petrel/hub/auth"
	"petrel.dev/petrel/hub/resource/bootstrappolicy"
	"petrel.dev/petrel/internal/kube"
)

// BenchmarkAuthorize decides about requests of a user with 500 rules, beside the roles of every cluster: in 500 roles with a binding each,
// in one role, and all of them for the resource that is asked for, so that each has to be looked at.
func BenchmarkAuthorize(b *testing.B) {
	const rules = 500
	u := auth.User{Name: "system:serviceaccount:shop:robot", Groups: append(auth.AccountGroups("shop"), "system:authenticated")}
	me := rbacv1.Subject{Kind: "ServiceAccount", Namespace: "shop", Name: "robot"}
	var many, one, same []kube.Object
	big := clusterRole("big").(*rbacv1.ClusterRole)
	alike := clusterRole("alike").(*rbacv1.ClusterRole)
	for i := range rules {
		name := fmt.Sprintf("r%03d", i)
		r := rule("get,list,watch " + name + " example.com")
		many = append(many, role("shop", name, r), binding("shop", name, "Role/"+name, me))
		big.Rules = append(big.Rules, r)
		alike.Rules = append(alike.Rules, rule("get,list,watch pods core "+name))
	}
	one = append(one, big, clusterBinding("big", "big", me))
	same = append(same, alike, clusterBinding("alike", "alike", me))
	for _, bench := range []struct {
		name    string
		objs    []kube.Object
		ask     string
		allowed bool
	}{
		{"500 roles, allowed", many, "list r499.example.com shop/", true},
		{"500 roles, refused", many, "list secrets shop/", false},
		{"one role of 500 rules, allowed", one, "list r499.example.com shop/", true},
		{"one role of 500 rules, refused", one, "list secrets shop/", false},
		{"500 rules of one resource, the last allows", same, "get pods shop/r499", true},
		{"500 rules of one resource, refused", same, "get pods shop/x", false},
	} {
		b.Run(bench.name, func(b *testing.B) {
			z := New(&stored{objs: append(bootstrappolicy.Objects(), bench.objs...)})
			a := ask(bench.ask)
			b.ReportAllocs()
			for b.Loop() {
				if ok, _, err := z.Authorize(b.Context(), u, a); ok != bench.allowed || err != nil {
					b.Fatal(ok, err)
				}
			}
		})
	}
	b.Run("policy made anew", func(b *testing.B) {
		s := &stored{objs: append(bootstrappolicy.Objects(), many...)}
		z, a := New(s), ask("list r499.example.com shop/")
		for b.Loop() {
			s.version++
			if ok, _, _ := z.Authorize(b.Context(), u, a); !ok {
				b.Fatal("refused")
			}
		}
	})
}
