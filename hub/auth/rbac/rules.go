package rbac

import (
	"context"
	"errors"
	"slices"

	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"

	"petrel.dev/petrel/hub/auth"
)

// RulesFor implements auth.Policy.
func (z *Authorizer) RulesFor(ctx context.Context, u auth.User, namespace string) (out authorizationv1.SubjectRulesReviewStatus) {
	rules, err := z.rules(ctx, u, namespace)
	for _, r := range rules {
		if len(r.Resources) > 0 {
			out.ResourceRules = append(out.ResourceRules, authorizationv1.ResourceRule{
				Verbs: r.Verbs, APIGroups: r.APIGroups, Resources: r.Resources, ResourceNames: r.ResourceNames,
			})
		}
		if len(r.NonResourceURLs) > 0 {
			out.NonResourceRules = append(out.NonResourceRules, authorizationv1.NonResourceRule{Verbs: r.Verbs, NonResourceURLs: r.NonResourceURLs})
		}
	}
	if err != nil {
		out.EvaluationError = err.Error()
	}
	return out
}

// rules returns all rules that count for u in a namespace, those of a binding once. They share memory with cached objects:
// read-only. err names the roles of u's bindings that do not exist; the rules are complete without them.
func (z *Authorizer) rules(ctx context.Context, u auth.User, namespace string) (rules []rbacv1.PolicyRule, err error) {
	caughtUp := auth.CaughtUp(ctx, z.objects.CatchUp)
	p := z.policy()
	var seen []*grant
	var errs []error
	if !caughtUp {
		errs = append(errs, errors.New("the hub's view of roles is behind"))
	}
	for _, scope := range scopes(namespace) {
		for id := range subjectsOf(u) {
			b := p.bound(scope, id)
			if b == nil {
				continue
			}
			for _, g := range b.grants {
				if slices.Contains(seen, g) {
					continue
				}
				seen = append(seen, g)
				rules = append(rules, g.rules...)
				if g.err != nil {
					errs = append(errs, g.err)
				}
			}
		}
	}
	return rules, utilerrors.NewAggregate(errs)
}
