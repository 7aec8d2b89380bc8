package policy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/admission"
	admissionauthorizer "k8s.io/apiserver/pkg/admission/plugin/authorizer"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/warning"

	"petrel.dev/petrel/hub/admission/match"
)

// maxAnnotation bounds the value of an audit annotation in bytes.
const maxAnnotation = 10 << 10

// decision is a refusal, with what made it.
type decision struct {
	policy  *definition
	binding *binding // nil: the policy itself
	reason  metav1.StatusReason
	message string
}

// Validate evaluates the validating policies. The error is the Status of the refusal.
func (e *Evaluator) Validate(ctx context.Context, set *Set, w *match.Write) error {
	if len(set.validating) == 0 || exempt(w) {
		return nil
	}
	invocations, problems, err := e.invocations(ctx, set.validating, w)
	if err != nil {
		return err
	}
	var denied []decision
	for _, p := range problems {
		denied = append(denied, decision{policy: p.policy, binding: p.binding, message: p.Error()})
	}
	if len(invocations) > 0 {
		namespace, err := e.namespace(w)
		if err != nil {
			return err
		}
		authz := admissionauthorizer.NewCachingAuthorizer(e.authorizer)
		annotations := annotations{}
		for _, i := range invocations {
			if err := overdue(ctx, w); err != nil {
				return err
			}
			view, err := w.As(ctx, i.hit.Kind)
			if err != nil {
				return apierrors.NewInternalError(err)
			}
			result := i.policy.compiled(set.room).validator.Validate(ctx, i.hit.Resource, view, i.param, namespace, celconfig.RuntimeCELCostBudget, authz)
			denied = append(denied, i.act(ctx, w, &result)...)
			denied = append(denied, annotations.collect(i, &result)...)
			denied = denied[:min(1, len(denied))] // the first is the answer; there may be one for each of ten thousand params
		}
		annotations.publish(w)
	}
	return refusal(w, denied)
}

// act does what the binding says of each failed validation, and returns those that refuse the write.
func (i *invocation) act(ctx context.Context, w *match.Write, result *validating.ValidateResult) (denied []decision) {
	for n, d := range result.Decisions {
		if d.Action != validating.ActionDeny {
			continue
		}
		for _, action := range i.binding.actions {
			switch action {
			case admissionregistrationv1.Deny:
				denied = append(denied, decision{i.policy, i.binding, d.Reason, d.Message})
			case admissionregistrationv1.Warn:
				warning.AddWarning(ctx, "", fmt.Sprintf("Validation failed for ValidatingAdmissionPolicy '%s' with binding '%s': %s", i.policy.name, i.binding.name, d.Message))
			case admissionregistrationv1.Audit:
				i.noteFailure(w, n, d.Message)
			}
		}
	}
	return denied
}

// noteFailure annotates the write with a failed validation.
func (i *invocation) noteFailure(w *match.Write, n int, message string) {
	b, err := json.Marshal([]validating.ValidationFailureValue{{
		Message: message, Policy: i.policy.name, Binding: i.binding.name, ExpressionIndex: n, ValidationActions: i.binding.actions,
	}})
	if err == nil {
		_ = w.AddAnnotation("validation.policy.admission.k8s.io/validation_failure", string(b))
	}
}

// annotations are the values of audit annotations by their key.
type annotations map[string][]string

// collect adds those of a result, and returns the refusals because of one that could not be evaluated.
func (a annotations) collect(i *invocation, result *validating.ValidateResult) (denied []decision) {
	for _, r := range result.AuditAnnotations {
		switch r.Action {
		case validating.AuditAnnotationActionPublish:
			key, value := i.policy.name+"/"+r.Key, r.Value[:min(len(r.Value), maxAnnotation)]
			if !slices.Contains(a[key], value) {
				a[key] = append(a[key], value)
			}
		case validating.AuditAnnotationActionError:
			denied = append(denied, decision{policy: i.policy, binding: i.binding, message: r.Error})
		}
	}
	return denied
}

func (a annotations) publish(w *match.Write) {
	for key, values := range a {
		_ = w.AddAnnotation(key, strings.Join(values, ", "))
	}
}

// refusal returns the Status of the first decision; nil for none.
func refusal(w *match.Write, denied []decision) error {
	if len(denied) == 0 {
		return nil
	}
	d := denied[0]
	message := fmt.Sprintf("ValidatingAdmissionPolicy '%s' denied request: %s", d.policy.name, d.message)
	if d.binding != nil {
		message = fmt.Sprintf("ValidatingAdmissionPolicy '%s' with binding '%s' denied request: %s", d.policy.name, d.binding.name, d.message)
	}
	var err *apierrors.StatusError
	if forbidden := admission.NewForbidden(w, errors.New(message)); !errors.As(forbidden, &err) {
		return forbidden
	}
	err.ErrStatus.Reason = d.reason
	if d.reason == "" {
		err.ErrStatus.Reason = metav1.StatusReasonInvalid
	}
	err.ErrStatus.Code = code(err.ErrStatus.Reason)
	err.ErrStatus.Details.Causes = append(err.ErrStatus.Details.Causes, metav1.StatusCause{Message: message})
	return err
}

// code returns the HTTP code of a reason that a validation may have.
func code(reason metav1.StatusReason) int32 {
	switch reason {
	case metav1.StatusReasonForbidden:
		return http.StatusForbidden
	case metav1.StatusReasonUnauthorized:
		return http.StatusUnauthorized
	case metav1.StatusReasonRequestEntityTooLarge:
		return http.StatusRequestEntityTooLarge
	}
	return http.StatusUnprocessableEntity
}
