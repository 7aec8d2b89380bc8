package dynamic

import (
	"context"

	"k8s.io/apiserver/pkg/authorization/authorizer"

	"petrel.dev/petrel/hub/auth"
)

// asAuthorizer is the hub's Authorizer as the expressions of upstream's libraries ask it.
type asAuthorizer struct{ auth.Authorizer }

// Authorize implements authorizer.Authorizer.
func (a asAuthorizer) Authorize(ctx context.Context, q authorizer.Attributes) (authorizer.Decision, string, error) {
	u := auth.User{}
	if info := q.GetUser(); info != nil {
		u = auth.User{Name: info.GetName(), UID: info.GetUID(), Groups: info.GetGroups(), Extra: info.GetExtra()}
	}
	allowed, reason, err := a.Authorizer.Authorize(ctx, u, auth.Attributes{
		Verb: q.GetVerb(), Path: q.GetPath(), Resource: q.IsResourceRequest(), APIGroup: q.GetAPIGroup(), APIVersion: q.GetAPIVersion(),
		Plural: q.GetResource(), Subresource: q.GetSubresource(), Namespace: q.GetNamespace(), Name: q.GetName(),
	})
	if allowed {
		return authorizer.DecisionAllow, reason, err
	}
	return authorizer.DecisionNoOpinion, reason, err
}
