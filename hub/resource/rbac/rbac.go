// Package rbac declares the kinds of rbac.authorization.k8s.io.
package rbac

import (
	rbacv1 "k8s.io/api/rbac/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/apis/rbac"
	_ "k8s.io/kubernetes/pkg/apis/rbac/install"
	"k8s.io/kubernetes/pkg/apis/rbac/validation"

	"petrel.dev/petrel/hub/resource"
)

// Kinds returns the declarations.
func Kinds() []*resource.Kind {
	return []*resource.Kind{clusterRoleBindingKind(), clusterRoleKind(), roleBindingKind(), roleKind()}
}

func roleKind() *resource.Kind {
	k := resource.Declare(rbacv1.SchemeGroupVersion.WithKind("Role"), "roles", "role")
	k.Columns = resource.NameAndCreation
	k.Rules = resource.Strategy[rbac.Role]{
		ValidateCreate: validation.ValidateRole,
		ValidateUpdate: validation.ValidateRoleUpdate,
		CreateOnUpdate: true,
	}.Rules()
	return k
}

func clusterRoleKind() *resource.Kind {
	k := resource.Declare(rbacv1.SchemeGroupVersion.WithKind("ClusterRole"), "clusterroles", "clusterrole")
	k.ClusterScoped()
	k.Columns = resource.NameAndCreation
	k.Rules = resource.Strategy[rbac.ClusterRole]{
		ValidateCreate: func(r *rbac.ClusterRole) field.ErrorList {
			return validation.ValidateClusterRole(r, validation.ClusterRoleValidationOptions{})
		},
		ValidateUpdate: func(r, old *rbac.ClusterRole) field.ErrorList {
			return validation.ValidateClusterRoleUpdate(r, old, validation.ClusterRoleValidationOptions{AllowInvalidLabelValueInSelector: hasWrongSelector(old)})
		},
		CreateOnUpdate: true,
	}.Rules()
	return k
}

// hasWrongSelector reports whether a stored role has a selector that would not be accepted now: what was accepted once may stay.
func hasWrongSelector(r *rbac.ClusterRole) bool {
	if r.AggregationRule == nil {
		return false
	}
	for i := range r.AggregationRule.ClusterRoleSelectors {
		s := &r.AggregationRule.ClusterRoleSelectors[i]
		if len(metav1validation.ValidateLabelSelector(s, metav1validation.LabelSelectorValidationOptions{}, nil)) > 0 {
			return true
		}
	}
	return false
}

func roleBindingKind() *resource.Kind {
	k := resource.Declare(rbacv1.SchemeGroupVersion.WithKind("RoleBinding"), "rolebindings", "rolebinding")
	k.Rules = resource.Strategy[rbac.RoleBinding]{
		ValidateCreate: validation.ValidateRoleBinding,
		ValidateUpdate: validation.ValidateRoleBindingUpdate,
		CreateOnUpdate: true,
	}.Rules()
	return k
}

func clusterRoleBindingKind() *resource.Kind {
	k := resource.Declare(rbacv1.SchemeGroupVersion.WithKind("ClusterRoleBinding"), "clusterrolebindings", "clusterrolebinding")
	k.ClusterScoped()
	k.Rules = resource.Strategy[rbac.ClusterRoleBinding]{
		ValidateCreate: validation.ValidateClusterRoleBinding,
		ValidateUpdate: validation.ValidateClusterRoleBindingUpdate,
		CreateOnUpdate: true,
	}.Rules()
	return k
}
