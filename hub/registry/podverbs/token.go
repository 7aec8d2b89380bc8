package podverbs

import (
	"context"
	"fmt"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

// TokenIssuer signs ServiceAccount tokens. pod is nil for a token that is not bound to one.
type TokenIssuer interface {
	IssueToken(ctx context.Context, sa *corev1.ServiceAccount, pod *corev1.Pod, audiences []string, lifetime time.Duration) (token string, expires time.Time, err error)
}

const (
	minTokenLifetime     = 10 * time.Minute
	defaultTokenLifetime = time.Hour
	// maxTokenLifetime is what a longer request is shortened to, with a warning, as API servers are usually set to.
	maxTokenLifetime = 365 * 24 * time.Hour
	// A token carries its audiences in each request's header.
	maxAudiences      = 16
	maxAudienceLength = 512 // bytes
)

// token issues a ServiceAccount's tokens.
type token struct {
	issuer TokenIssuer // nil: there are none
}

// Handle implements resource.Handler.
func (t *token) Handle(ctx context.Context, q *resource.Request, body runtime.Object, objects resource.Objects) (resource.Answer, error) {
	req, ok := body.(*authenticationv1.TokenRequest)
	if !ok {
		return resource.Answer{}, apierrors.NewBadRequest(fmt.Sprintf("not a TokenRequest object: %T", body))
	}
	if t.issuer == nil {
		return resource.Answer{}, apierrors.NewServiceUnavailable("this hub issues no ServiceAccount tokens")
	}
	obj, err := objects.Get(ctx, q.Kind.GVK, q.Namespace, q.Name)
	if err != nil {
		return resource.Answer{}, err
	}
	sa, ok := obj.(*corev1.ServiceAccount)
	if !ok {
		return resource.Answer{}, apierrors.NewBadRequest(fmt.Sprintf("%s have no tokens", q.Kind.Plural))
	}
	if err := checkNames(q, req); err != nil {
		return resource.Answer{}, err
	}
	lifetime, warnings, err := checkTokenRequest(req)
	if err != nil {
		return resource.Answer{}, err
	}
	pod, err := boundPod(ctx, objects, q.Namespace, req.Spec.BoundObjectRef, sa.Name)
	if err != nil {
		return resource.Answer{}, err
	}
	if err := objects.Admit(ctx, q, sa, req); err != nil {
		return resource.Answer{}, err
	}
	out := req.DeepCopy()
	out.Name, out.Namespace = sa.Name, sa.Namespace
	out.CreationTimestamp = metav1.NewTime(objects.Now())
	seconds := int64(lifetime / time.Second)
	out.Spec.ExpirationSeconds = &seconds
	if !q.DryRun {
		signed, expires, err := t.issuer.IssueToken(ctx, sa, pod, req.Spec.Audiences, lifetime)
		if err != nil {
			return resource.Answer{}, apierrors.NewInternalError(err)
		}
		out.Status = authenticationv1.TokenRequestStatus{Token: signed, ExpirationTimestamp: metav1.NewTime(expires)}
	}
	out.SetGroupVersionKind(authenticationv1.SchemeGroupVersion.WithKind("TokenRequest"))
	return resource.Answer{Object: out, Warnings: warnings}, nil
}

// checkNames refuses a body that is about another account than the URL.
func checkNames(q *resource.Request, req *authenticationv1.TokenRequest) error {
	if req.Name != "" && req.Name != q.Name {
		return apierrors.NewBadRequest(fmt.Sprintf("name in URL does not match name in TokenRequest object: %s, %s", q.Name, req.Name))
	}
	if req.Namespace != "" && req.Namespace != q.Namespace {
		return apierrors.NewBadRequest(fmt.Sprintf("namespace in URL does not match namespace in TokenRequest object: %s, %s", q.Namespace, req.Namespace))
	}
	return nil
}

// checkTokenRequest returns the requested lifetime, shortened to the longest allowed one, with a warning when it was longer.
func checkTokenRequest(req *authenticationv1.TokenRequest) (lifetime time.Duration, warnings []string, err error) {
	lifetime, errs := tokenLifetime(req)
	errs = append(errs, validateAudiences(req.Spec.Audiences)...)
	if len(errs) > 0 {
		return 0, nil, apierrors.NewInvalid(schema.GroupKind{Group: authenticationv1.GroupName, Kind: "TokenRequest"}, "", errs)
	}
	if lifetime > maxTokenLifetime {
		warnings = []string{fmt.Sprintf("requested expiration of %d seconds shortened to %d seconds", *req.Spec.ExpirationSeconds, int64(maxTokenLifetime/time.Second))}
		lifetime = maxTokenLifetime
	}
	return lifetime, warnings, nil
}

func tokenLifetime(req *authenticationv1.TokenRequest) (time.Duration, field.ErrorList) {
	s := req.Spec.ExpirationSeconds
	if s == nil {
		return defaultTokenLifetime, nil
	}
	path := field.NewPath("spec").Child("expirationSeconds")
	var errs field.ErrorList
	if *s < int64(minTokenLifetime/time.Second) {
		errs = append(errs, field.Invalid(path, *s, "may not specify a duration less than 10 minutes"))
	}
	if *s > 1<<32 {
		errs = append(errs, field.Invalid(path, *s, "may not specify a duration larger than 2^32 seconds"))
	}
	return time.Duration(*s) * time.Second, errs // at most 2^32 seconds, which a Duration holds
}

// validateAudiences bounds the audiences, which are in each header with the token.
func validateAudiences(auds []string) (errs field.ErrorList) {
	path := field.NewPath("spec").Child("audiences")
	if len(auds) > maxAudiences {
		return field.ErrorList{field.TooMany(path, len(auds), maxAudiences)}
	}
	for i, a := range auds {
		if len(a) > maxAudienceLength {
			errs = append(errs, field.TooLong(path.Index(i), "", maxAudienceLength))
		}
	}
	return errs
}

// boundPod returns the pod that a token is bound to; nil when the request names none.
func boundPod(ctx context.Context, objects resource.Objects, namespace string, ref *authenticationv1.BoundObjectReference, account string) (*corev1.Pod, error) {
	if ref == nil {
		return nil, nil
	}
	if ref.Kind != kube.Pod.Kind || ref.APIVersion != kube.Pod.GroupVersion().String() {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("cannot bind token for object of type %s", schema.FromAPIVersionAndKind(ref.APIVersion, ref.Kind)))
	}
	obj, err := objects.Get(ctx, kube.Pod, namespace, ref.Name)
	if err != nil {
		return nil, err
	}
	pod, ok := obj.(*corev1.Pod)
	if !ok {
		return nil, apierrors.NewInternalError(fmt.Errorf("%T is no pod", obj))
	}
	if name := pod.Spec.ServiceAccountName; name != account {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("cannot bind token for serviceaccount %q to pod running with different serviceaccount name.", account))
	}
	if ref.UID != "" && ref.UID != pod.UID {
		return nil, apierrors.NewConflict(corev1.Resource("pods"), ref.Name, fmt.Errorf("the UID in the bound object reference (%s) does not match the UID in record. The object might have been deleted and then recreated", types.UID(ref.UID))) //nolint:staticcheck // upstream's text
	}
	return pod, nil
}
