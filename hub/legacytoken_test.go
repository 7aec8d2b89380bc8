package hub

import (
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"petrel.dev/petrel/hub/auth/satoken"
)

// TestLegacyTokenOfAWholeHub follows the token in a Secret through a hub: it is filled in, its use is noted as a label, and once the
// Secret is marked as invalid it is refused, which is noted too.
func TestLegacyTokenOfAWholeHub(t *testing.T) {
	config, stop := running(t, t.TempDir())
	defer stop()
	ctx, secrets := t.Context(), clientOf(t, config).CoreV1().Secrets("default")
	eventually(t, "the namespace has no account", func() bool {
		_, err := clientOf(t, config).CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{})
		return err == nil
	})
	if _, err := secrets.Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "robot", Annotations: map[string]string{corev1.ServiceAccountNameKey: "default"}},
		Type:       corev1.SecretTypeServiceAccountToken,
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	now := func() *corev1.Secret {
		s, err := secrets.Get(ctx, "robot", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	const used = "kubernetes.io/legacy-token-last-used"
	eventually(t, "the Secret has no token", func() bool { return len(now().Data["token"]) > 0 })
	if at, ok := now().Labels[used]; ok {
		t.Errorf("a token that was never used is labelled %q", at)
	}
	robot := rest.AnonymousClientConfig(config)
	robot.BearerToken = string(now().Data["token"])
	ask := func() error {
		_, err := clientOf(t, robot).AuthenticationV1().SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
		return err
	}
	noted := func() bool {
		at, err := time.Parse(time.DateOnly, now().Labels[used])
		return err == nil && time.Since(at).Abs() < 48*time.Hour
	}
	if err := ask(); err != nil {
		t.Error(err)
	}
	eventually(t, "the use of a token is not noted", noted)

	label := func(patch string) {
		if _, err := secrets.Patch(ctx, "robot", types.MergePatchType, []byte(`{"metadata":{"labels":`+patch+`}}`), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	label(`{"` + satoken.InvalidSinceLabel + `":"2026-11-28"}`)
	eventually(t, "a token that is marked as invalid is accepted", func() bool { return apierrors.IsUnauthorized(ask()) })
	label(`{"` + used + `":null}`)
	eventually(t, "the use of a token that is marked as invalid is not noted", func() bool { return apierrors.IsUnauthorized(ask()) && noted() })
	review, err := clientOf(t, config).AuthenticationV1().TokenReviews().Create(ctx,
		&authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: robot.BearerToken}}, metav1.CreateOptions{})
	if err != nil || review.Status.Authenticated || !strings.Contains(review.Status.Error, "default/robot for service account default/default has been marked invalid") {
		t.Errorf("%+v, %v", review.Status, err)
	}
	label(`{"` + satoken.InvalidSinceLabel + `":null}`)
	eventually(t, "a token is refused after the mark has gone", func() bool { return ask() == nil })
}
