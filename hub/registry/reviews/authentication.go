package reviews

import (
	"context"
	"fmt"

	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"petrel.dev/petrel/hub/auth"
	"petrel.dev/petrel/hub/resource"
)

// tokenReview tells a program that was shown a token whose it is.
type tokenReview struct{ tokens Tokens }

// Handle implements resource.Handler. A token that is no good is an answer, not an error.
func (t *tokenReview) Handle(ctx context.Context, q *resource.Request, body runtime.Object, _ resource.Objects) (resource.Answer, error) {
	review, ok := body.DeepCopyObject().(*authenticationv1.TokenReview)
	if !ok {
		return resource.Answer{}, unexpected(q, body)
	}
	if review.Spec.Token == "" {
		return resource.Answer{}, apierrors.NewBadRequest("token is required for TokenReview in authentication")
	}
	review.Status = authenticationv1.TokenReviewStatus{}
	user, accepted, err := t.tokens.Token(ctx, review.Spec.Token, review.Spec.Audiences)
	if err != nil {
		// Upstream's form: what all of them say, then what is wrong with this one.
		review.Status.Error = fmt.Sprintf("[invalid bearer token, %v]", err)
		return resource.Answer{Object: review}, nil
	}
	review.Status = authenticationv1.TokenReviewStatus{Authenticated: true, User: userInfo(user), Audiences: accepted}
	return resource.Answer{Object: review}, nil
}

// selfReview says who asks.
type selfReview struct{}

// Handle implements resource.Handler.
func (selfReview) Handle(_ context.Context, q *resource.Request, body runtime.Object, objects resource.Objects) (resource.Answer, error) {
	review, ok := body.(*authenticationv1.SelfSubjectReview)
	if !ok {
		return resource.Answer{}, unexpected(q, body)
	}
	return resource.Answer{Object: &authenticationv1.SelfSubjectReview{
		TypeMeta:   review.TypeMeta,
		ObjectMeta: metav1.ObjectMeta{CreationTimestamp: metav1.NewTime(objects.Now())},
		Status:     authenticationv1.SelfSubjectReviewStatus{UserInfo: userInfo(q.User)},
	}}, nil
}

// userInfo shares memory with u, which nobody changes.
func userInfo(u auth.User) authenticationv1.UserInfo {
	out := authenticationv1.UserInfo{Username: u.Name, UID: u.UID, Groups: u.Groups, Extra: make(map[string]authenticationv1.ExtraValue, len(u.Extra))}
	for k, v := range u.Extra {
		out.Extra[k] = v
	}
	return out
}
