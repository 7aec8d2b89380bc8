package reviews

import (
	"context"
	"fmt"
	"strings"

	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"

	"petrel.dev/petrel/hub/auth"
	"petrel.dev/petrel/hub/resource"
)

// accessReview says whether a request would be allowed: another user's, or that of who asks.
type accessReview struct{ policy auth.Policy }

// Handle implements resource.Handler.
func (a *accessReview) Handle(ctx context.Context, q *resource.Request, body runtime.Object, _ resource.Objects) (resource.Answer, error) {
	out := body.DeepCopyObject()
	switch review := out.(type) {
	case *authorizationv1.SubjectAccessReview:
		review.Status = a.ask(ctx, subject(&review.Spec), review.Spec.ResourceAttributes, review.Spec.NonResourceAttributes)
	case *authorizationv1.LocalSubjectAccessReview:
		if review.Namespace == "" {
			return resource.Answer{}, apierrors.NewBadRequest("namespace is required on this type: ")
		}
		review.Status = a.ask(ctx, subject(&review.Spec), review.Spec.ResourceAttributes, review.Spec.NonResourceAttributes)
	case *authorizationv1.SelfSubjectAccessReview:
		review.Status = a.ask(ctx, q.User, review.Spec.ResourceAttributes, review.Spec.NonResourceAttributes)
	default:
		return resource.Answer{}, unexpected(q, body)
	}
	return resource.Answer{Object: out}, nil
}

// ask puts the question to the policy. Validation has seen to it that one of r and n is set. An error is a refusal.
func (a *accessReview) ask(ctx context.Context, u auth.User, r *authorizationv1.ResourceAttributes, n *authorizationv1.NonResourceAttributes) authorizationv1.SubjectAccessReviewStatus {
	allowed, reason, err := a.policy.Authorize(ctx, u, attributes(r, n))
	var problems []string
	if err != nil {
		problems = append(problems, err.Error())
	}
	return authorizationv1.SubjectAccessReviewStatus{
		Allowed:         allowed && err == nil,
		Reason:          reason,
		EvaluationError: strings.Join(append(problems, ignoredSelectors(r)...), "; "),
	}
}

// subject is the user that a review is about: in those groups that it names, and no others.
func subject(spec *authorizationv1.SubjectAccessReviewSpec) auth.User {
	u := auth.User{Name: spec.User, UID: spec.UID, Groups: spec.Groups, Extra: make(map[string][]string, len(spec.Extra))}
	for k, v := range spec.Extra {
		u.Extra[k] = v
	}
	return u
}

func attributes(r *authorizationv1.ResourceAttributes, n *authorizationv1.NonResourceAttributes) auth.Attributes {
	if r == nil {
		return auth.Attributes{Verb: n.Verb, Path: n.Path}
	}
	version := r.Version
	if version == "" {
		version = "*"
	}
	return auth.Attributes{
		Verb: r.Verb, Resource: true, APIGroup: r.Group, APIVersion: version, Plural: r.Resource,
		Subresource: r.Subresource, Namespace: r.Namespace, Name: r.Name, FieldSelector: fieldSelector(r.FieldSelector),
	}
}

// fieldSelector returns what can be read of a selector, in the form that lists have it in.
func fieldSelector(s *authorizationv1.FieldSelectorAttributes) string {
	if s == nil {
		return ""
	}
	if _, err := parsed(s.RawSelector, fields.ParseSelector); err != nil {
		return ""
	} else if s.RawSelector != "" {
		return s.RawSelector
	}
	var out []fields.Selector
	for _, r := range s.Requirements {
		switch {
		case !readableField(r):
		case r.Operator == metav1.FieldSelectorOpIn:
			out = append(out, fields.OneTermEqualSelector(r.Key, r.Values[0]))
		default:
			out = append(out, fields.OneTermNotEqualSelector(r.Key, r.Values[0]))
		}
	}
	return fields.AndSelectors(out...).String()
}

// maxSelector bounds a selector that is text, in bytes: a request's URL has no longer one, and parsing takes a hundred times as much.
const maxSelector = 64 << 10

// parsed parses a selector that is no longer than maxSelector.
func parsed[S any](text string, parse func(string) (S, error)) (S, error) {
	if len(text) > maxSelector {
		var none S
		return none, fmt.Errorf("a selector may have %d bytes, this one has %d", maxSelector, len(text))
	}
	return parse(text)
}

// ignoredSelectors names, in upstream's words, the selectors of r that cannot be read. Without them the question is a wider one,
// so nothing is allowed that should not be.
func ignoredSelectors(r *authorizationv1.ResourceAttributes) (problems []string) {
	if r == nil {
		return nil
	}
	if s := r.FieldSelector; s != nil {
		_, err := parsed(s.RawSelector, fields.ParseSelector)
		problems = append(problems, ignored("fieldSelector", err, s.Requirements, readableField)...)
	}
	if s := r.LabelSelector; s != nil {
		_, err := parsed(s.RawSelector, func(text string) (labels.Selector, error) { return labels.Parse(text) })
		problems = append(problems, ignored("labelSelector", err, s.Requirements, readableLabel)...)
	}
	return problems
}

// ignored describes one selector, of which err is what is wrong with its raw form.
func ignored[R any](name string, err error, requirements []R, readable func(R) bool) []string {
	good := 0
	for _, r := range requirements {
		if readable(r) {
			good++
		}
	}
	switch {
	case good > 0 && good < len(requirements):
		return []string{"spec.resourceAttributes." + name + " partially ignored due to parse error"}
	case err != nil, good < len(requirements):
		return []string{"spec.resourceAttributes." + name + " ignored due to parse error"}
	}
	return nil
}

// readableField reports whether a field selector can say r: a field is or is not one value.
func readableField(r metav1.FieldSelectorRequirement) bool {
	return len(r.Values) == 1 && (r.Operator == metav1.FieldSelectorOpIn || r.Operator == metav1.FieldSelectorOpNotIn)
}

func readableLabel(r metav1.LabelSelectorRequirement) bool {
	_, err := metav1.LabelSelectorAsSelector(&metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{r}})
	return err == nil
}

// rulesReview lists what who asks may do.
type rulesReview struct{ policy auth.Policy }

// Handle implements resource.Handler.
func (r *rulesReview) Handle(ctx context.Context, q *resource.Request, body runtime.Object, _ resource.Objects) (resource.Answer, error) {
	review, ok := body.(*authorizationv1.SelfSubjectRulesReview)
	if !ok {
		return resource.Answer{}, unexpected(q, body)
	}
	if review.Spec.Namespace == "" {
		return resource.Answer{}, apierrors.NewBadRequest("no namespace on request")
	}
	return resource.Answer{Object: &authorizationv1.SelfSubjectRulesReview{
		TypeMeta: review.TypeMeta,
		Status:   r.policy.RulesFor(ctx, q.User, review.Spec.Namespace),
	}}, nil
}
