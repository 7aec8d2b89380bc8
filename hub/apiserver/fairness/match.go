package fairness

import (
	"slices"
	"strings"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"

	"petrel.dev/petrel/hub/auth"
)

// matches reports whether a FlowSchema is about a request.
func matches(s *flowcontrolv1.FlowSchemaSpec, u *auth.User, a *auth.Attributes) bool {
	for i := range s.Rules {
		if r := &s.Rules[i]; covers(r, a) && slices.ContainsFunc(r.Subjects, func(s flowcontrolv1.Subject) bool { return is(&s, u) }) {
			return true
		}
	}
	return false
}

// is reports whether a user is a subject.
func is(s *flowcontrolv1.Subject, u *auth.User) bool {
	switch {
	case s.User != nil:
		return s.User.Name == flowcontrolv1.NameAll || s.User.Name == u.Name
	case s.Group != nil:
		return s.Group.Name == flowcontrolv1.NameAll || slices.Contains(u.Groups, s.Group.Name)
	case s.ServiceAccount != nil:
		account, ok := strings.CutPrefix(u.Name, "system:serviceaccount:")
		namespace, name, two := strings.Cut(account, ":")
		return ok && two && namespace == s.ServiceAccount.Namespace &&
			(s.ServiceAccount.Name == flowcontrolv1.NameAll || s.ServiceAccount.Name == name)
	}
	return false
}

// covers reports whether a request is one of those of a rule.
func covers(r *flowcontrolv1.PolicyRulesWithSubjects, a *auth.Attributes) bool {
	if !a.Resource {
		return slices.ContainsFunc(r.NonResourceRules, func(r flowcontrolv1.NonResourcePolicyRule) bool {
			return has(r.Verbs, a.Verb) && slices.ContainsFunc(r.NonResourceURLs, func(url string) bool {
				return url == flowcontrolv1.NonResourceAll || url == a.Path ||
					strings.HasPrefix(a.Path, strings.TrimSuffix(strings.TrimSuffix(url, "*"), "/")+"/")
			})
		})
	}
	what := a.Plural
	if a.Subresource != "" {
		what += "/" + a.Subresource
	}
	return slices.ContainsFunc(r.ResourceRules, func(r flowcontrolv1.ResourcePolicyRule) bool {
		if !has(r.Verbs, a.Verb) || !has(r.Resources, what) || !has(r.APIGroups, a.APIGroup) {
			return false
		}
		return a.Namespace == "" && r.ClusterScope || a.Namespace != "" && has(r.Namespaces, a.Namespace)
	})
}

// has reports whether a list has s or the wildcard, which all lists of rules share.
func has(list []string, s string) bool {
	return slices.Contains(list, s) || len(list) == 1 && list[0] == flowcontrolv1.VerbAll
}
