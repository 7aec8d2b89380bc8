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
	"k8s.io/apimachinery/pkg/util/validation/field"

	"petrel.dev/petrel/hub/auth/satoken"
	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

// TokenIssuer signs ServiceAccount tokens; *satoken.Keys is one.
type TokenIssuer interface {
	IssueToken(ctx context.Context, sa *corev1.ServiceAccount, to satoken.Bound, audiences []string, lifetime time.Duration) (token string, expires time.Time, err error)
}

const (
	defaultTokenLifetime = time.Hour
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
	if err := checkNames(q, req, sa); err != nil {
		return resource.Answer{}, err
	}
	lifetime, warnings, err := checkTokenRequest(req)
	if err != nil {
		return resource.Answer{}, err
	}
	if err := objects.Admit(ctx, q, sa, req); err != nil {
		return resource.Answer{}, err
	}
	to, err := boundTo(ctx, objects, q.Namespace, req.Spec.BoundObjectRef, sa.Name)
	if err != nil {
		return resource.Answer{}, err
	}
	out := req.DeepCopy()
	out.Name, out.Namespace, out.UID = sa.Name, sa.Namespace, sa.UID
	out.CreationTimestamp = metav1.NewTime(objects.Now())
	seconds := int64(lifetime / time.Second)
	out.Spec.ExpirationSeconds = &seconds
	if len(out.Spec.Audiences) == 0 {
		out.Spec.Audiences = []string{satoken.Issuer}
	}
	out.Status = authenticationv1.TokenRequestStatus{}
	if !q.DryRun {
		signed, expires, err := t.issuer.IssueToken(ctx, sa, to, req.Spec.Audiences, lifetime)
		if err != nil {
			return resource.Answer{}, apierrors.NewInternalError(err)
		}
		out.Status = authenticationv1.TokenRequestStatus{Token: signed, ExpirationTimestamp: metav1.NewTime(expires)}
	}
	out.SetGroupVersionKind(authenticationv1.SchemeGroupVersion.WithKind("TokenRequest"))
	return resource.Answer{Object: out, Warnings: warnings}, nil
}

var tokenRequest = schema.GroupKind{Group: authenticationv1.GroupName, Kind: "TokenRequest"}

// checkNames refuses a body that is about another account than the URL.
func checkNames(q *resource.Request, req *authenticationv1.TokenRequest, sa *corev1.ServiceAccount) error {
	meta := field.NewPath("metadata")
	switch {
	case req.Name != "" && req.Name != q.Name:
		return kube.NewInvalid(tokenRequest, q.Name, field.ErrorList{field.Invalid(meta.Child("name"), req.Name, "must match the service account name if specified")})
	case req.Namespace != "" && req.Namespace != q.Namespace:
		return kube.NewInvalid(tokenRequest, q.Name, field.ErrorList{field.Invalid(meta.Child("namespace"), req.Namespace, "must match the service account namespace if specified")})
	case req.UID != "" && req.UID != sa.UID:
		return apierrors.NewConflict(schema.GroupResource{Group: tokenRequest.Group, Resource: tokenRequest.Kind}, q.Name,
			fmt.Errorf("the UID in the token request (%s) does not match the UID of the service account (%s)", req.UID, sa.UID))
	}
	return nil
}

// checkTokenRequest returns the requested lifetime, shortened to the longest allowed one, with a warning when it was longer.
func checkTokenRequest(req *authenticationv1.TokenRequest) (lifetime time.Duration, warnings []string, err error) {
	lifetime, errs := tokenLifetime(req)
	errs = append(errs, validateAudiences(req.Spec.Audiences)...)
	if len(errs) > 0 {
		return 0, nil, kube.NewInvalid(tokenRequest, "", errs)
	}
	if lifetime > satoken.MaxLifetime {
		warnings = []string{fmt.Sprintf("requested expiration of %d seconds shortened to %d seconds", *req.Spec.ExpirationSeconds, int64(satoken.MaxLifetime/time.Second))}
		lifetime = satoken.MaxLifetime
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
	if *s < int64(satoken.MinLifetime/time.Second) {
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

// boundTo returns what a token is bound to, as it is stored.
func boundTo(ctx context.Context, objects resource.Objects, namespace string, ref *authenticationv1.BoundObjectReference, account string) (to satoken.Bound, err error) {
	if ref == nil {
		return satoken.Bound{}, nil
	}
	gvk := schema.FromAPIVersionAndKind(ref.APIVersion, ref.Kind)
	var obj kube.Object
	switch {
	case gvk.Group != "":
		return to, unbindable(gvk)
	case gvk.Kind == kube.Pod.Kind:
		if to.Pod, err = get[*corev1.Pod](ctx, objects, kube.Pod, namespace, ref.Name); err != nil {
			return to, err
		}
		if to.Pod.Spec.ServiceAccountName != account {
			return to, apierrors.NewBadRequest(fmt.Sprintf("cannot bind token for serviceaccount %q to pod running with different serviceaccount name.", account))
		}
		obj = to.Pod
		// A node that does not exist is still named in the token.
		to.Node, err = get[*corev1.Node](ctx, objects, kube.Node, "", to.Pod.Spec.NodeName)
		if err != nil && !apierrors.IsNotFound(err) {
			return to, err
		}
	case gvk.Kind == kube.Secret.Kind:
		if to.Secret, err = get[*corev1.Secret](ctx, objects, kube.Secret, namespace, ref.Name); err != nil {
			return to, err
		}
		obj = to.Secret
	case gvk.Kind == kube.Node.Kind:
		if to.Node, err = get[*corev1.Node](ctx, objects, kube.Node, "", ref.Name); err != nil {
			return to, err
		}
		obj = to.Node
	default:
		return to, unbindable(gvk)
	}
	if ref.UID != "" && ref.UID != obj.GetUID() {
		return to, apierrors.NewConflict(schema.GroupResource{Group: gvk.Group, Resource: gvk.Kind}, ref.Name,
			fmt.Errorf("the UID in the bound object reference (%s) does not match the UID in record. The object might have been deleted and then recreated", ref.UID)) // upstream's text
	}
	return to, nil
}

func unbindable(gvk kube.GVK) error {
	return apierrors.NewBadRequest(fmt.Sprintf("cannot bind token to object of type %s", gvk))
}

// get returns a stored object with its type; nil with an error.
func get[T kube.Object](ctx context.Context, objects resource.Objects, gvk kube.GVK, namespace, name string) (none T, err error) {
	if name == "" {
		return none, apierrors.NewNotFound(schema.GroupResource{Resource: gvk.Kind}, name)
	}
	obj, err := objects.Get(ctx, gvk, namespace, name)
	if err != nil {
		return none, err
	}
	typed, ok := obj.(T)
	if !ok {
		return none, apierrors.NewInternalError(fmt.Errorf("%T is no %s", obj, gvk.Kind))
	}
	return typed, nil
}
