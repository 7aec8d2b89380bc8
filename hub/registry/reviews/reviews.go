// Package reviews answers the kinds of which nothing is stored: who a token belongs to, who asks, and what a user may do.
// Each is a resource.Handler. The registry has run the kind's rules and admission before; the answers are those of what decides
// about requests, so a review and the request that it is about cannot differ.
//
//	TokenReview ─► Tokens          SubjectAccessReview, Local…, Self… ─► Policy.Authorize
//	SelfSubjectReview ─► the request's own user          SelfSubjectRulesReview ─► Policy.RulesFor
package reviews

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"

	"petrel.dev/petrel/hub/auth"
	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

// Tokens judges bearer tokens; *auth.Credentials is one.
type Tokens interface {
	// Token returns whose token it is, and for which of audiences it is good; none are the API's own. err says why it is not.
	Token(ctx context.Context, token string, audiences []string) (user auth.User, accepted []string, err error)
}

// Install gives the declared kinds their handlers. It comes before the kinds are shared. tokens and policy are those of the
// hub's own requests; both are required.
func Install(kinds *resource.Kinds, tokens Tokens, policy auth.Policy) error {
	if tokens == nil || policy == nil {
		return errors.New("reviews: who decides about tokens and requests is missing")
	}
	return errors.Join(
		kinds.Handle(kube.TokenReview, "", &tokenReview{tokens}),
		kinds.Handle(kube.SelfSubjectReview, "", selfReview{}),
		kinds.Handle(kube.SubjectAccessReview, "", &accessReview{policy}),
		kinds.Handle(kube.LocalSubjectAccessReview, "", &accessReview{policy}),
		kinds.Handle(kube.SelfSubjectAccessReview, "", &accessReview{policy}),
		kinds.Handle(kube.SelfSubjectRulesReview, "", &rulesReview{policy}),
	)
}

// unexpected refuses a body that is of another type than its kind.
func unexpected(q *resource.Request, body runtime.Object) error {
	return apierrors.NewBadRequest(fmt.Sprintf("not a %s: %T", q.Kind.GVK.Kind, body))
}
