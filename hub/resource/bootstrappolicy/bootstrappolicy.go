// Package bootstrappolicy has the roles and bindings that every Kubernetes cluster starts with: those of users (admin, edit, view),
// of system users, and of each controller under its own name. They are upstream's, so that what helm charts and operators
// bind to exists and means what it means elsewhere.
package bootstrappolicy

import (
	"maps"
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/kubernetes/plugin/pkg/auth/authorizer/rbac/bootstrappolicy"

	"petrel.dev/petrel/internal/kube"
)

// Objects returns new ClusterRoles, ClusterRoleBindings, Roles and RoleBindings, in that order. Namespaced ones are in kube-system
// and kube-public.
func Objects() []kube.Object {
	var out []kube.Object
	for _, r := range slices.Concat(bootstrappolicy.ClusterRoles(), bootstrappolicy.ControllerRoles()) {
		r.SetGroupVersionKind(kube.ClusterRole)
		out = append(out, r.DeepCopy())
	}
	for _, b := range slices.Concat(bootstrappolicy.ClusterRoleBindings(), bootstrappolicy.ControllerRoleBindings()) {
		b.SetGroupVersionKind(kube.ClusterRoleBinding)
		out = append(out, b.DeepCopy())
	}
	roles := bootstrappolicy.NamespaceRoles()
	for _, namespace := range slices.Sorted(maps.Keys(roles)) {
		for _, r := range roles[namespace] {
			r.SetGroupVersionKind(kube.Role)
			r.Namespace = namespace
			out = append(out, r.DeepCopy())
		}
	}
	bindings := bootstrappolicy.NamespaceRoleBindings()
	for _, namespace := range slices.Sorted(maps.Keys(bindings)) {
		for _, b := range bindings[namespace] {
			b.SetGroupVersionKind(kube.RoleBinding)
			b.Namespace = namespace
			out = append(out, b.DeepCopy())
		}
	}
	return out
}

// NodeRules returns what every node may do with objects that are not divided among the nodes.
func NodeRules() []rbacv1.PolicyRule { return bootstrappolicy.NodeRules() }
