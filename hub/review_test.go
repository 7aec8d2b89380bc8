package hub

import (
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestWholeHubAnswersReviews asks a whole hub: its policy and its keys answer, also about an account that was made a moment ago.
func TestWholeHubAnswersReviews(t *testing.T) {
	config, stop := running(t, t.TempDir())
	defer stop()
	c := clientOf(t, config)
	accounts := c.CoreV1().ServiceAccounts(metav1.NamespaceDefault)
	if _, err := accounts.Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "robot"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	issued, err := accounts.CreateToken(t.Context(), "robot", &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: []string{"vault"}}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	review, err := c.AuthenticationV1().TokenReviews().Create(t.Context(), &authenticationv1.TokenReview{
		Spec: authenticationv1.TokenReviewSpec{Token: issued.Status.Token, Audiences: []string{"vault", "bank"}},
	}, metav1.CreateOptions{})
	if err != nil || !review.Status.Authenticated || review.Status.User.Username != "system:serviceaccount:default:robot" || len(review.Status.Audiences) != 1 {
		t.Errorf("%+v, %v", review, err)
	}
	access, err := c.AuthorizationV1().LocalSubjectAccessReviews("none").Create(t.Context(), &authorizationv1.LocalSubjectAccessReview{
		ObjectMeta: metav1.ObjectMeta{Namespace: "none"},
		Spec: authorizationv1.SubjectAccessReviewSpec{
			User: review.Status.User.Username, Groups: review.Status.User.Groups,
			ResourceAttributes: &authorizationv1.ResourceAttributes{Namespace: "none", Verb: "list", Resource: "pods"},
		},
	}, metav1.CreateOptions{})
	if err != nil || access.Status.Allowed {
		t.Errorf("%+v, %v", access, err)
	}
}
