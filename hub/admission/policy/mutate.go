package policy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apiserver/pkg/admission"
	admissionauthorizer "k8s.io/apiserver/pkg/admission/plugin/authorizer"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/policy/mutating/patch"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"petrel.dev/petrel/hub/admission/match"
	"petrel.dev/petrel/hub/registry"
)

// failure is a policy that could not be applied. It refuses the write unless failures of the policy are ignored.
type failure struct {
	policy  *definition
	binding *binding // nil: the policy itself
	reason  metav1.StatusReason
	err     error
}

func (f *failure) Error() string {
	if f.binding != nil {
		return fmt.Sprintf("policy '%s' with binding '%s' denied request: %s", f.policy.name, f.binding.name, f.err)
	}
	return fmt.Sprintf("policy %q denied request: %s", f.policy.name, f.err)
}

// Mutate applies the mutating policies to the write, one after another. It is one round of the request: in the second only those are
// applied that again selects. The error is the Status of the refusal.
func (e *Evaluator) Mutate(ctx context.Context, set *Set, w *match.Write, again *match.Again) error {
	if len(set.mutating) == 0 || w.GetOperation() == admission.Operation(registry.OpDelete) || exempt(w) {
		return nil
	}
	invocations, problems, err := e.invocations(ctx, set.mutating, w)
	if err != nil {
		return err
	}
	var failures []*failure
	for _, p := range problems {
		failures = append(failures, &failure{policy: p.policy, binding: p.binding, err: p})
	}
	if len(invocations) > 0 {
		namespace, err := e.namespace(w)
		if err != nil {
			return err
		}
		authz := admissionauthorizer.NewCachingAuthorizer(e.authorizer)
		for _, i := range invocations {
			if again.Skip(i.key()) {
				continue
			}
			if err := overdue(ctx, w); err != nil {
				return err
			}
			failed, err := e.apply(ctx, set, i, w, namespace, authz, again)
			if err != nil {
				return err
			}
			for _, err := range failed {
				if i.policy.fails != "Ignore" {
					failures = append(failures, &failure{i.policy, i.binding, metav1.StatusReasonInvalid, err})
				}
			}
		}
	}
	return refuse(w, failures)
}

// apply applies one policy. failed are the errors that the failure policy decides about; err refuses the write.
func (e *Evaluator) apply(ctx context.Context, set *Set, i *invocation, w *match.Write, namespace *corev1.Namespace, authz authorizer.Authorizer, again *match.Again) (failed []error, err error) {
	m := i.policy.compiled(set.room).mutator
	if m.broken != nil {
		return []error{m.broken}, nil
	}
	ctx = m.context(ctx)
	view, err := w.As(ctx, i.hit.Kind)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	if m.conditions != nil {
		result := m.conditions.Match(ctx, view, i.param, authz)
		if result.Error != nil {
			return []error{result.Error}, nil
		}
		if !result.Matches {
			return nil, nil
		}
	}
	changed := false
	for _, p := range m.patches {
		if view.VersionedObject == nil {
			break // nothing to patch
		}
		did, err := e.patch(ctx, i, p, w, view, namespace, authz)
		changed = changed || did
		var status *apierrors.StatusError
		if errors.As(err, &status) {
			return nil, status
		}
		if err != nil {
			failed = append(failed, err)
			continue
		}
		if view, err = w.As(ctx, i.hit.Kind); err != nil {
			return nil, apierrors.NewInternalError(err)
		}
	}
	again.Ran(i.key(), changed, i.policy.mutating.Spec.ReinvocationPolicy == "IfNeeded")
	return failed, nil
}

// patch applies one mutation of a policy to the write, and reports whether it has changed the object. view shows another object afterwards,
// if it shares that of the write.
func (e *Evaluator) patch(ctx context.Context, i *invocation, p patch.Patcher, w *match.Write, view *admission.VersionedAttributes, namespace *corev1.Namespace, authz authorizer.Authorizer) (changed bool, err error) {
	next, err := p.Patch(ctx, patch.Request{
		MatchedResource:     i.hit.Resource,
		VersionedAttributes: view,
		ObjectInterfaces:    e.scheme,
		OptionalVariables:   plugincel.OptionalVariableBindings{VersionedParams: i.param, Authorizer: authz},
		Namespace:           namespace,
		TypeConverter:       e.types,
	}, celconfig.RuntimeCELCostBudget)
	if err != nil {
		return false, err
	}
	if next == view.VersionedObject {
		return false, nil // a test of the patch failed
	}
	if u, ok := next.(*unstructured.Unstructured); ok {
		b, err := json.Marshal(u.Object)
		if err != nil {
			return false, err
		}
		if next, err = w.Decode(b, view.VersionedKind); err != nil {
			return false, err
		}
	}
	if reflect.TypeOf(next) != reflect.TypeOf(view.VersionedObject) {
		return false, fmt.Errorf("the mutation makes a %T of a %T: apiVersion and kind cannot be changed", next, view.VersionedObject)
	}
	if err := affordable(next); err != nil {
		return false, err
	}
	next.GetObjectKind().SetGroupVersionKind(view.VersionedKind)
	if equality.Semantic.DeepEqual(view.VersionedObject, next) {
		return false, nil
	}
	return true, w.Replace(ctx, next)
}

// refuse returns the Status of failures, whose message is that of the first; nil for none.
func refuse(w *match.Write, failures []*failure) error {
	if len(failures) == 0 {
		return nil
	}
	var err *apierrors.StatusError
	if forbidden := admission.NewForbidden(w, errors.New("admission request denied by policy")); !errors.As(forbidden, &err) {
		return forbidden
	}
	err.ErrStatus.Message = failures[0].Error()
	if failures[0].reason != "" {
		err.ErrStatus.Reason = failures[0].reason
	}
	for _, f := range failures {
		err.ErrStatus.Details.Causes = append(err.ErrStatus.Details.Causes, metav1.StatusCause{Message: f.Error()})
	}
	return err
}
