package auth

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// catchUpTime bounds how long a decision waits for the cache. A request must not hold its slot for as long as the feed of changes
// hangs; it is refused instead.
const catchUpTime = 2 * time.Second

// CaughtUp reports whether catchUp, which waits until reads show all that was committed before, has done so in time.
func CaughtUp(ctx context.Context, catchUp func(context.Context) error) bool {
	ctx, cancel := context.WithTimeout(ctx, catchUpTime)
	defer cancel()
	return catchUp(ctx) == nil
}

// Policy is an Authorizer that can also list what it allows.
type Policy interface {
	Authorizer
	// RulesFor lists what u may do in a namespace. It says so when the list is not complete.
	RulesFor(ctx context.Context, u User, namespace string) authorizationv1.SubjectRulesReviewStatus
}

// Union allows what one of its policies allows, and asks them in order. An empty one allows nothing.
type Union []Policy

// Authorize implements Authorizer. The reason of a refusal has a line for each policy that gives one.
func (p Union) Authorize(ctx context.Context, u User, a Attributes) (allowed bool, reason string, err error) {
	var reasons []string
	var errs []error
	for _, policy := range p {
		allowed, reason, err := policy.Authorize(ctx, u, a)
		switch {
		case err != nil:
			errs = append(errs, err)
		case allowed:
			return true, reason, nil
		case reason != "":
			reasons = append(reasons, reason)
		}
	}
	return false, strings.Join(reasons, "\n"), errors.Join(errs...)
}

// RulesFor implements Policy. The lists are never null: clients expect lists.
func (p Union) RulesFor(ctx context.Context, u User, namespace string) authorizationv1.SubjectRulesReviewStatus {
	out := authorizationv1.SubjectRulesReviewStatus{
		ResourceRules: []authorizationv1.ResourceRule{}, NonResourceRules: []authorizationv1.NonResourceRule{},
	}
	var problems []string
	for _, policy := range p {
		more := policy.RulesFor(ctx, u, namespace)
		out.ResourceRules = append(out.ResourceRules, more.ResourceRules...)
		out.NonResourceRules = append(out.NonResourceRules, more.NonResourceRules...)
		out.Incomplete = out.Incomplete || more.Incomplete
		if more.EvaluationError != "" {
			problems = append(problems, more.EvaluationError)
		}
	}
	switch len(problems) {
	case 0:
	case 1:
		out.EvaluationError = problems[0]
	default:
		out.EvaluationError = "[" + strings.Join(problems, ", ") + "]"
	}
	return out
}

// Masters allows the group system:masters everything. It comes before other policies: the administrator gets in, and quickly, also
// when the stored roles cannot be read or allow nobody anything.
type Masters struct{}

// Authorize implements Authorizer.
func (Masters) Authorize(_ context.Context, u User, _ Attributes) (allowed bool, reason string, err error) {
	return u.IsMaster(), "", nil
}

// RulesFor implements Policy. The ClusterRoleBinding "cluster-admin" lists the group's rights, as on Kubernetes.
func (Masters) RulesFor(context.Context, User, string) authorizationv1.SubjectRulesReviewStatus {
	return authorizationv1.SubjectRulesReviewStatus{}
}

// markup makes names that clients send harmless where an answer is shown as HTML.
var markup = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")

// Forbidden returns the 403 for u, in upstream's words.
func Forbidden(u User, a Attributes, reason string) *apierrors.StatusError {
	msg := fmt.Sprintf("User %q cannot %s path %q", u.Name, a.Verb, a.Path)
	if a.Resource {
		plural := a.Plural
		if a.Subresource != "" {
			plural += "/" + a.Subresource
		}
		msg = fmt.Sprintf("User %q cannot %s resource %q in API group %q ", u.Name, a.Verb, plural, a.APIGroup)
		if a.Namespace != "" {
			msg += fmt.Sprintf("in the namespace %q", a.Namespace)
		} else {
			msg += "at the cluster scope"
		}
	}
	msg = markup.Replace(msg)
	if reason != "" {
		msg += ": " + reason
	}
	return apierrors.NewForbidden(schema.GroupResource{Group: a.APIGroup, Resource: a.Plural}, a.Name, errors.New(msg))
}

// AccountOf returns the ServiceAccount whose user name this is; ok is false for every other user.
func AccountOf(username string) (namespace, name string, ok bool) {
	rest, ok := strings.CutPrefix(username, accountPrefix)
	if !ok {
		return "", "", false
	}
	namespace, name, ok = strings.Cut(rest, ":")
	return namespace, name, ok && namespace != "" && name != "" && !strings.Contains(name, ":")
}

// NodeOf returns the name of the node that u is; isNode is false for a user who is not called system:node:NAME, or is not in the
// group system:nodes. The name may be empty.
func NodeOf(u User) (name string, isNode bool) {
	name, ok := strings.CutPrefix(u.Name, nodePrefix)
	return name, ok && slices.Contains(u.Groups, GroupNodes)
}
