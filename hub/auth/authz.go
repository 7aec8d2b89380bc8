package auth

import (
	"context"
	"slices"
	"strings"

	authorizationv1 "k8s.io/api/authorization/v1"
)

// MastersOnly is the Authorizer until there are roles: system:masters may do everything. Every other authenticated user may read
// discovery (Kubernetes' system:discovery and system:basic-user), and ServiceAccounts also how to verify tokens
// (system:service-account-issuer-discovery). Everything else is refused.
type MastersOnly struct{}

// Authorize decides by the user's groups. It never returns an error.
func (MastersOnly) Authorize(_ context.Context, u User, a Attributes) (allowed bool, reason string, err error) {
	switch {
	case slices.Contains(u.Groups, groupMasters):
		return true, "", nil
	case !slices.Contains(u.Groups, GroupAuthenticated):
		return false, "", nil
	case a.Resource:
		return selfReview(a), "", nil
	case a.Verb != "get":
		return false, "", nil
	case discovery(a.Path):
		return true, "", nil
	}
	return slices.Contains(u.Groups, groupServiceAccounts) && issuerDiscovery(a.Path), "", nil
}

// RulesFor lists what Authorize allows u, in every namespace alike. Patterns of paths know no depth: "/api/*" stands for the
// versions of the core group.
func (MastersOnly) RulesFor(_ context.Context, u User, _ string) authorizationv1.SubjectRulesReviewStatus {
	out := authorizationv1.SubjectRulesReviewStatus{
		ResourceRules: []authorizationv1.ResourceRule{}, NonResourceRules: []authorizationv1.NonResourceRule{},
	}
	if slices.Contains(u.Groups, groupMasters) {
		all := []string{"*"}
		out.ResourceRules = append(out.ResourceRules, authorizationv1.ResourceRule{Verbs: all, APIGroups: all, Resources: all})
		out.NonResourceRules = append(out.NonResourceRules, authorizationv1.NonResourceRule{Verbs: all, NonResourceURLs: all})
		return out
	}
	if !slices.Contains(u.Groups, GroupAuthenticated) {
		return out
	}
	create := []string{"create"}
	out.ResourceRules = append(out.ResourceRules,
		authorizationv1.ResourceRule{Verbs: create, APIGroups: []string{"authentication.k8s.io"}, Resources: []string{"selfsubjectreviews"}},
		authorizationv1.ResourceRule{Verbs: create, APIGroups: []string{"authorization.k8s.io"}, Resources: []string{"selfsubjectaccessreviews", "selfsubjectrulesreviews"}},
	)
	paths := []string{
		"/api", "/api/*", "/apis", "/apis/*", "/healthz", "/healthz/*", "/livez", "/livez/*", "/openapi", "/openapi/*", "/readyz", "/readyz/*", "/version",
	}
	if slices.Contains(u.Groups, groupServiceAccounts) {
		paths = append(paths, "/.well-known/openid-configuration", "/openid/v1/jwks")
	}
	out.NonResourceRules = append(out.NonResourceRules, authorizationv1.NonResourceRule{Verbs: []string{"get"}, NonResourceURLs: paths})
	return out
}

// selfReview reports whether a is a review of the user's own name and rights.
func selfReview(a Attributes) bool {
	if a.Verb != "create" || a.Subresource != "" {
		return false
	}
	switch a.APIGroup + "/" + a.Plural {
	case "authentication.k8s.io/selfsubjectreviews",
		"authorization.k8s.io/selfsubjectaccessreviews", "authorization.k8s.io/selfsubjectrulesreviews":
		return true
	}
	return false
}

// discovery reports whether path is about what the API serves, not about the objects in it. It goes by depth, because a path of a
// kind that is not served looks like one of objects: it must not be open when the kind is served one day.
func discovery(path string) bool {
	p := strings.Split(strings.Trim(path, "/"), "/")
	switch p[0] {
	case "api":
		return len(p) <= 2
	case "apis":
		return len(p) <= 3
	case "openapi":
		return true
	case "version":
		return len(p) == 1
	case "healthz", "livez", "readyz":
		return true
	}
	return false
}

func issuerDiscovery(path string) bool {
	return path == "/openid/v1/jwks" || path == "/.well-known/openid-configuration"
}
