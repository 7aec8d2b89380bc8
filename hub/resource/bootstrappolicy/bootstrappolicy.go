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
	for _, r := range append(slices.Concat(bootstrappolicy.ClusterRoles(), bootstrappolicy.ControllerRoles()), metricsReader()) {
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

// metricsReader returns the role that metrics-server brings elsewhere: those who may view, edit or administer may read metrics too. In a
// namespace that is about its pods.
func metricsReader() rbacv1.ClusterRole {
	r := rbacv1.ClusterRole{
		Rules: []rbacv1.PolicyRule{{Verbs: []string{"get", "list", "watch"}, APIGroups: []string{"metrics.k8s.io"}, Resources: []string{"pods", "nodes"}}},
	}
	r.Name = "system:aggregated-metrics-reader"
	r.Annotations = map[string]string{rbacv1.AutoUpdateAnnotationKey: "true"}
	r.Labels = map[string]string{"kubernetes.io/bootstrapping": "rbac-defaults"}
	for _, to := range []string{"view", "edit", "admin"} {
		r.Labels["rbac.authorization.k8s.io/aggregate-to-"+to] = "true"
	}
	return r
}

// NodeRules returns what every node may do with objects that are not divided among the nodes.
func NodeRules() []rbacv1.PolicyRule { return bootstrappolicy.NodeRules() }
