package rbac

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/component-helpers/auth/rbac/validation"

	"petrel.dev/petrel/hub/auth"
)

// everything is what an aggregation rule can gather.
var everything = []rbacv1.PolicyRule{
	{Verbs: []string{"*"}, APIGroups: []string{"*"}, Resources: []string{"*"}},
	{Verbs: []string{"*"}, NonResourceURLs: []string{"*"}},
}

// MayGrant returns nil when u itself has, in namespace, all that rules allow. Otherwise the error lists what u lacks, in upstream's
// words.
func (z *Authorizer) MayGrant(ctx context.Context, u auth.User, namespace string, rules []rbacv1.PolicyRule) error {
	own, failure := z.rules(ctx, u, namespace)
	covered, missing := validation.Covers(own, rules)
	if covered {
		return nil
	}
	lacks := map[string]bool{}
	for _, r := range compact(missing) {
		lacks[text(r)] = true
	}
	msg := fmt.Sprintf("user %q (groups=%q) is attempting to grant RBAC permissions not currently held:\n%s",
		u.Name, u.Groups, strings.Join(slices.Sorted(maps.Keys(lacks)), "\n"))
	if failure != nil {
		msg += fmt.Sprintf("; resolution errors: %v", []error{failure})
	}
	return errors.New(msg)
}

// MayAggregate is MayGrant of everything, with a text for ClusterRoles that gather the rules of others.
func (z *Authorizer) MayAggregate(ctx context.Context, u auth.User) error {
	if z.MayGrant(ctx, u, "", everything) != nil {
		return errors.New("must have cluster-admin privileges to use the aggregationRule")
	}
	return nil
}

// RulesOf returns the rules of the role that a binding in namespace ("" for a ClusterRoleBinding) refers to, or a NotFound error.
func (z *Authorizer) RulesOf(ref rbacv1.RoleRef, namespace string) ([]rbacv1.PolicyRule, error) {
	return z.policy().rulesOf(ref, namespace)
}

// compact joins rules that differ in their verbs only. Each of rules has at most one of everything, as Covers returns them.
func compact(rules []rbacv1.PolicyRule) (out []rbacv1.PolicyRule) {
	at := map[[3]string]int{}
	for _, r := range rules {
		if len(r.Resources) != 1 || len(r.APIGroups) != 1 || len(r.NonResourceURLs) > 0 {
			out = append(out, r)
			continue
		}
		key := [3]string{r.APIGroups[0], r.Resources[0], strings.Join(r.ResourceNames, "/")} // names of objects have no slash
		if i, ok := at[key]; ok {
			out[i].Verbs = append(slices.Clip(out[i].Verbs), r.Verbs...)
			continue
		}
		at[key] = len(out)
		out = append(out, r)
	}
	return out
}

// text returns a rule in upstream's form: {APIGroups:["apps"], Resources:["deployments"], Verbs:["get" "list"]}.
func text(r rbacv1.PolicyRule) string {
	var parts []string
	for _, f := range []struct {
		name   string
		values []string
	}{
		{"APIGroups", r.APIGroups}, {"Resources", r.Resources}, {"NonResourceURLs", r.NonResourceURLs}, {"ResourceNames", r.ResourceNames}, {"Verbs", r.Verbs},
	} {
		if len(f.values) > 0 {
			parts = append(parts, fmt.Sprintf("%s:%q", f.name, f.values))
		}
	}
	return "{" + strings.Join(parts, ", ") + "}"
}
