package registry

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

// bind gives a pod its node, once.
func (r *Registry) bind(ctx context.Context, t Target, body runtime.Object, dry bool) (*Result, error) {
	b, ok := body.(*corev1.Binding)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("not a Binding object: %T", body))
	}
	if b.Name == "" {
		b.Name = t.Name
	}
	if b.Name != t.Name {
		return nil, apierrors.NewBadRequest("name in URL does not match name in Binding object")
	}
	if errs := validateBinding(b); len(errs) > 0 {
		return nil, plainError(errs.ToAggregate().Error())
	}
	if _, _, err := r.change(ctx, t, dry, func(cur *current) (*plan, error) {
		if cur == nil {
			return nil, notFound(t.Kind, t.Name)
		}
		if b.ResourceVersion != "" && b.ResourceVersion != formatRevision(cur.entry.Rev) {
			return nil, modified(t.Kind, t.Name)
		}
		return r.planBinding(ctx, t, cur, b, dry)
	}); err != nil {
		return nil, err
	}
	return success(201, nil)
}

func validateBinding(b *corev1.Binding) field.ErrorList {
	var errs field.ErrorList
	target := field.NewPath("target")
	if b.Target.Kind != "" && b.Target.Kind != "Node" {
		errs = append(errs, field.NotSupported(target.Child("kind"), b.Target.Kind, []string{"Node", "<empty>"}))
	}
	if b.Target.Name == "" {
		errs = append(errs, field.Required(target.Child("name"), ""))
	}
	return errs
}

// planBinding is what a Binding does to the current pod.
func (r *Registry) planBinding(ctx context.Context, t Target, cur *current, b *corev1.Binding, dry bool) (*plan, error) {
	k := storedKind(t.Kind)
	if b.UID != "" && b.UID != cur.obj.GetUID() {
		return nil, uidMismatch(k, t.Name, b.UID, cur.obj.GetUID())
	}
	pod, ok := cur.obj.DeepCopyObject().(*corev1.Pod)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("%s cannot be bound to a node", k.Plural))
	}
	attrs := Attributes{Target: t, Operation: OpCreate, Object: pod, Old: cur.obj, Body: b, DryRun: dry}
	if err := r.admission.Mutate(ctx, attrs); err != nil {
		return nil, err
	}
	if err := r.admission.Validate(ctx, attrs); err != nil {
		return nil, err
	}
	if err := assign(pod, b, r.now()); err != nil {
		return nil, apierrors.NewConflict(schema.GroupResource{Resource: "pods/binding"}, t.Name, err)
	}
	p := &plan{kind: k, key: cur.entry.Key, old: cur, obj: pod}
	return p, p.encode()
}

// assign sets the pod's node and what goes with it.
func assign(pod *corev1.Pod, b *corev1.Binding, now time.Time) error {
	switch {
	case pod.DeletionTimestamp != nil:
		return fmt.Errorf("pod %s is being deleted, cannot be assigned to a host", pod.Name)
	case pod.Spec.NodeName != "":
		return fmt.Errorf("pod %v is already assigned to node %q", pod.Name, pod.Spec.NodeName)
	case len(pod.Spec.SchedulingGates) != 0:
		return fmt.Errorf("pod %v has non-empty .spec.schedulingGates", pod.Name)
	}
	pod.Spec.NodeName = b.Target.Name
	pod.Status.NominatedNodeName = ""
	if len(b.Annotations) > 0 {
		if pod.Annotations == nil {
			pod.Annotations = map[string]string{}
		}
		maps.Copy(pod.Annotations, b.Annotations)
	}
	if len(b.Labels) > 0 {
		if pod.Labels == nil {
			pod.Labels = map[string]string{}
		}
		maps.Copy(pod.Labels, b.Labels)
	}
	pod.Status.Conditions = kube.SetCondition(pod.Status.Conditions, corev1.PodCondition{
		Type: corev1.PodScheduled, Status: corev1.ConditionTrue,
		LastTransitionTime: metav1.NewTime(now.Truncate(time.Second)),
	})
	return nil
}

// evict deletes a pod with grace and says in its status why. There are no disruption budgets to ask yet.
func (r *Registry) evict(ctx context.Context, t Target, body runtime.Object, dry bool) (*Result, error) {
	e, ok := body.(*policyv1.Eviction)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("not a Eviction object: %T", body))
	}
	if e.Name != "" && e.Name != t.Name {
		return nil, apierrors.NewBadRequest("name in URL does not match name in Eviction object")
	}
	opts := &metav1.DeleteOptions{}
	if e.DeleteOptions != nil {
		opts = e.DeleteOptions.DeepCopy()
	}
	if dry {
		opts.DryRun = []string{metav1.DryRunAll}
	}
	if err := invalidOptions("DeleteOptions", validation.ValidateDeleteOptions(opts)); err != nil {
		return nil, err
	}
	dry = len(opts.DryRun) > 0
	_, _, err := r.change(ctx, t, dry, func(cur *current) (*plan, error) {
		if cur == nil {
			return nil, notFound(t.Kind, t.Name)
		}
		attrs := Attributes{Target: t, Operation: OpCreate, Old: cur.obj, Body: e, DryRun: dry}
		if err := r.admission.Mutate(ctx, attrs); err != nil {
			return nil, err
		}
		if err := r.admission.Validate(ctx, attrs); err != nil {
			return nil, err
		}
		p, err := r.planDelete(ctx, t, cur, opts.DeepCopy(), dry)
		if err != nil || p.noop() {
			return p, err
		}
		if pod, ok := p.obj.(*corev1.Pod); ok {
			pod.Status.Conditions = kube.SetCondition(pod.Status.Conditions, corev1.PodCondition{
				Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue,
				Reason: "EvictionByEvictionAPI", Message: "Eviction API: evicting",
				LastTransitionTime: metav1.NewTime(r.now().Truncate(time.Second)),
			})
		}
		return p, p.encode() // a new condition at least, or a removal
	})
	if err != nil {
		return nil, err
	}
	return success(201, nil)
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

// issueToken answers serviceaccounts/token.
func (r *Registry) issueToken(ctx context.Context, t Target, body runtime.Object, dry bool) (*Result, error) {
	req, ok := body.(*authenticationv1.TokenRequest)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("not a TokenRequest object: %T", body))
	}
	if r.tokens == nil {
		return nil, apierrors.NewServiceUnavailable("this hub issues no ServiceAccount tokens")
	}
	cur, err := r.current(ctx, t.Kind, resource.Key(t.Kind, t.Namespace, t.Name))
	if err != nil {
		return nil, err
	}
	if cur == nil {
		return nil, notFound(t.Kind, t.Name)
	}
	sa, ok := cur.obj.(*corev1.ServiceAccount)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("%s have no tokens", t.Kind.Plural))
	}
	if req.Name != "" && req.Name != t.Name {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("name in URL does not match name in TokenRequest object: %s, %s", t.Name, req.Name))
	}
	if req.Namespace != "" && req.Namespace != t.Namespace {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("namespace in URL does not match namespace in TokenRequest object: %s, %s", t.Namespace, req.Namespace))
	}
	lifetime, warnings, err := checkTokenRequest(req)
	if err != nil {
		return nil, err
	}
	pod, err := r.boundPod(ctx, t.Namespace, req.Spec.BoundObjectRef, sa.Name)
	if err != nil {
		return nil, err
	}
	attrs := Attributes{Target: t, Operation: OpCreate, Old: sa, Body: req, DryRun: dry}
	if err := r.admission.Mutate(ctx, attrs); err != nil {
		return nil, err
	}
	if err := r.admission.Validate(ctx, attrs); err != nil {
		return nil, err
	}
	out := req.DeepCopy()
	out.Name, out.Namespace = sa.Name, sa.Namespace
	out.CreationTimestamp = metav1.NewTime(r.now().Truncate(time.Second))
	seconds := int64(lifetime / time.Second)
	out.Spec.ExpirationSeconds = &seconds
	if !dry {
		token, expires, err := r.tokens.IssueToken(ctx, sa, pod, req.Spec.Audiences, lifetime)
		if err != nil {
			return nil, statusOr500(err)
		}
		out.Status = authenticationv1.TokenRequestStatus{Token: token, ExpirationTimestamp: metav1.NewTime(expires)}
	}
	out.SetGroupVersionKind(authenticationv1.SchemeGroupVersion.WithKind("TokenRequest"))
	b, err := encodeBody(out)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	return &Result{JSON: b, Object: out, Created: true, Warnings: warnings}, nil
}

// checkTokenRequest returns the lifetime that is asked for, shortened to what is given, and a warning when it was.
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

// validateAudiences bounds what is going to be in each header that carries the token.
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

// boundPod finds the pod that a token shall live and die with; nil when the request names none.
func (r *Registry) boundPod(ctx context.Context, namespace string, ref *authenticationv1.BoundObjectReference, account string) (*corev1.Pod, error) {
	if ref == nil {
		return nil, nil
	}
	if ref.Kind != "Pod" || ref.APIVersion != "v1" {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("cannot bind token for object of type %s", schema.FromAPIVersionAndKind(ref.APIVersion, ref.Kind)))
	}
	k := r.kindFor(kube.Pod)
	if k == nil {
		return nil, apierrors.NewInternalError(errors.New("pods are not served"))
	}
	cur, err := r.current(ctx, k, resource.Key(k, namespace, ref.Name))
	if err != nil {
		return nil, err
	}
	if cur == nil {
		return nil, notFound(k, ref.Name)
	}
	pod := cur.obj.(*corev1.Pod)
	if name := pod.Spec.ServiceAccountName; name != account {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("cannot bind token for serviceaccount %q to pod running with different serviceaccount name.", account))
	}
	if ref.UID != "" && ref.UID != pod.UID {
		return nil, conflict(k, ref.Name, fmt.Errorf("the UID in the bound object reference (%s) does not match the UID in record. The object might have been deleted and then recreated", types.UID(ref.UID))) //nolint:staticcheck // upstream's text
	}
	return pod, nil
}
