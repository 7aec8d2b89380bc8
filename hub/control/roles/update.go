package roles

import (
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-helpers/auth/rbac/validation"

	"petrel.dev/petrel/internal/kube"
)

// updated returns old with all that want has and old lacks, as a new object; nil when old lacks nothing.
func updated(old, want kube.Object) kube.Object {
	next := old.DeepCopyObject().(kube.Object)
	changed := addMissing(next.GetAnnotations(), want.GetAnnotations(), next.SetAnnotations)
	changed = addMissing(next.GetLabels(), want.GetLabels(), next.SetLabels) || changed
	switch n := next.(type) {
	case *rbacv1.ClusterRole:
		w := want.(*rbacv1.ClusterRole)
		changed = addRules(&n.Rules, w.Rules) || changed
		changed = addSelectors(n, w) || changed
	case *rbacv1.Role:
		changed = addRules(&n.Rules, want.(*rbacv1.Role).Rules) || changed
	case *rbacv1.ClusterRoleBinding:
		changed = addSubjects(&n.Subjects, want.(*rbacv1.ClusterRoleBinding).Subjects) || changed
	case *rbacv1.RoleBinding:
		changed = addSubjects(&n.Subjects, want.(*rbacv1.RoleBinding).Subjects) || changed
	}
	if !changed {
		return nil
	}
	return next
}

// roleChanged reports whether old is a binding to another role than want.
func roleChanged(old, want kube.Object) bool {
	switch w := want.(type) {
	case *rbacv1.ClusterRoleBinding:
		return old.(*rbacv1.ClusterRoleBinding).RoleRef != w.RoleRef
	case *rbacv1.RoleBinding:
		return old.(*rbacv1.RoleBinding).RoleRef != w.RoleRef
	}
	return false
}

// addMissing sets the keys of want that have lacks; values of have stay. It reports whether there were any.
func addMissing(have, want map[string]string, set func(map[string]string)) (changed bool) {
	for k, v := range want {
		if _, ok := have[k]; ok {
			continue
		}
		if have == nil {
			have = map[string]string{}
		}
		have[k], changed = v, true
	}
	if changed {
		set(have)
	}
	return changed
}

// addRules adds rules for what have does not allow.
func addRules(have *[]rbacv1.PolicyRule, want []rbacv1.PolicyRule) (changed bool) {
	_, missing := validation.Covers(*have, want)
	*have = append(*have, missing...)
	return len(missing) > 0
}

// addSelectors gives a role the aggregation that want has: all of its selectors, or none at all.
func addSelectors(have, want *rbacv1.ClusterRole) (changed bool) {
	if want.AggregationRule == nil {
		changed = have.AggregationRule != nil
		have.AggregationRule = nil
		return changed
	}
	for _, s := range want.AggregationRule.ClusterRoleSelectors {
		if have.AggregationRule == nil {
			have.AggregationRule = &rbacv1.AggregationRule{}
		}
		same := func(h metav1.LabelSelector) bool { return equality.Semantic.DeepEqual(h, s) }
		if !slices.ContainsFunc(have.AggregationRule.ClusterRoleSelectors, same) {
			have.AggregationRule.ClusterRoleSelectors = append(have.AggregationRule.ClusterRoleSelectors, s)
			changed = true
		}
	}
	return changed
}

func addSubjects(have *[]rbacv1.Subject, want []rbacv1.Subject) (changed bool) {
	for _, s := range want {
		if !slices.Contains(*have, s) {
			*have = append(*have, s)
			changed = true
		}
	}
	return changed
}
