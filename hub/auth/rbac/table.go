package rbac

import (
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"

	"petrel.dev/petrel/hub/auth"
)

// table is what all bindings of one subject in one scope allow, arranged so that a request looks only at rules for its resource.
type table struct {
	byResource map[string][]entry // by how a rule names the resource: "pods", "pods/log", "*/scale", "*"
	paths      []entry            // of rules for paths
	missing    []error            // why bindings give nothing
}

// entry is one rule, and the binding that gives it.
type entry struct {
	grant *grant
	rule  *rbacv1.PolicyRule // of a cached object: read-only
}

// table returns the subject's, which the first call makes.
func (b *bindings) table() *table {
	b.once.Do(func() {
		b.made.byResource = map[string][]entry{}
		for _, g := range b.grants {
			if g.err != nil {
				b.made.missing = append(b.made.missing, g.err)
			}
			for i := range g.rules {
				e := entry{g, &g.rules[i]}
				for j, resource := range e.rule.Resources {
					if !slices.Contains(e.rule.Resources[:j], resource) {
						b.made.byResource[resource] = append(b.made.byResource[resource], e)
					}
				}
				if len(e.rule.NonResourceURLs) > 0 {
					b.made.paths = append(b.made.paths, e)
				}
			}
		}
	})
	return &b.made
}

// allows returns the grant that allows a; nil when there is none.
func (t *table) allows(a auth.Attributes) *grant {
	if !a.Resource {
		for _, e := range t.paths {
			if matches(e.rule.Verbs, a.Verb) && matchesPath(e.rule.NonResourceURLs, a.Path) {
				return e.grant
			}
		}
		return nil
	}
	resource := a.Plural
	if a.Subresource != "" {
		resource += "/" + a.Subresource
		if g := t.under("*/"+a.Subresource, a); g != nil {
			return g
		}
	}
	if g := t.under(resource, a); g != nil || resource == rbacv1.ResourceAll {
		return g
	}
	return t.under(rbacv1.ResourceAll, a)
}

// under returns the grant that allows a by a rule that names its resource so.
func (t *table) under(resource string, a auth.Attributes) *grant {
	for _, e := range t.byResource[resource] {
		r := e.rule
		if (len(r.ResourceNames) == 0 || slices.Contains(r.ResourceNames, a.Name)) && matches(r.Verbs, a.Verb) && matches(r.APIGroups, a.APIGroup) {
			return e.grant
		}
	}
	return nil
}

// Allows reports whether one of rules allows a.
func Allows(rules []rbacv1.PolicyRule, a auth.Attributes) bool {
	b := bindings{grants: []*grant{{rules: rules}}}
	return b.table().allows(a) != nil
}

// matches reports whether a rule's verbs, or API groups, have one.
func matches(have []string, one string) bool {
	for _, h := range have {
		if h == "*" || h == one {
			return true
		}
	}
	return false
}

// matchesPath reports whether a rule's patterns have a path. A star matches at the end of a pattern only.
func matchesPath(patterns []string, path string) bool {
	for _, p := range patterns {
		if p == path || p == rbacv1.NonResourceAll {
			return true
		}
		if strings.HasSuffix(p, "*") && strings.HasPrefix(path, strings.TrimRight(p, "*")) {
			return true
		}
	}
	return false
}
