package policy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/admission"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"

	"petrel.dev/petrel/hub/admission/match"
	"petrel.dev/petrel/hub/celbound"
	"petrel.dev/petrel/hub/registry/patchcost"
	"petrel.dev/petrel/hub/weight"
)

const (
	// maxMutation bounds what the result of a mutation takes once it is written out, in bytes: upstream's library writes out what shares
	// its parts, and nothing stops it.
	maxMutation = 16 << 20
	// maxOperations bounds a JSON patch as that of a client.
	maxOperations = 10_000
	// maxInvocations bounds how often policies are evaluated for one write: once for each binding and each object of params.
	maxInvocations = 50_000
)

// bounded is an evaluator of mutations whose result has a bounded size, and costs a bounded time to apply.
type bounded struct{ plugincel.MutatingEvaluator }

// ForInput implements plugincel.MutatingEvaluator.
func (b bounded) ForInput(ctx context.Context, view *admission.VersionedAttributes, request *admissionv1.AdmissionRequest, inputs plugincel.OptionalVariableBindings,
	namespace *corev1.Namespace, budget int64) (plugincel.EvaluationResult, int64, error) {
	result, left, err := b.MutatingEvaluator.ForInput(ctx, view, request, inputs, namespace, budget)
	if err != nil || result.Error != nil {
		return result, left, err
	}
	if celbound.Written(result.EvalResult, maxMutation) > maxMutation {
		return result, left, fmt.Errorf("the mutation would take more than %d bytes of memory", maxMutation)
	}
	p := celbound.PatchOf(result.EvalResult)
	if p.Operations > maxOperations {
		return result, left, fmt.Errorf("the allowed maximum operations in a JSON patch is %d, got %d", maxOperations, p.Operations)
	}
	const few = 64 // so many operations are harmless on whatever fits into an object
	if p.Operations <= few {
		return result, left, nil
	}
	now, err := json.Marshal(view.VersionedObject)
	if err != nil {
		return result, left, err
	}
	if err := patchcost.Operations(now, p.Operations, p.Tests, p.Largest); err != nil {
		return result, left, errors.New(err.Error()) // no Status: the failure policy decides
	}
	return result, left, nil
}

// affordable refuses an object that a mutation has made too large to be validated.
func affordable(next runtime.Object) error {
	text, err := json.Marshal(next)
	if err != nil {
		return err
	}
	return weight.Check(text, weight.ShapeOf(next))
}

// overdue returns the refusal of a write whose time is over, nil before: each policy costs some, and there may be thousands.
func overdue(ctx context.Context, w *match.Write) error {
	if ctx.Err() == nil {
		return nil
	}
	return apierrors.NewTimeoutError(fmt.Sprintf("request did not complete within requested timeout: the admission policies about %s take too long", w.GetResource().Resource), 0)
}

// tooMany returns the refusal of a write that more policies and params are about than can be evaluated.
func tooMany(w *match.Write) error {
	return apierrors.NewForbidden(w.GetResource().GroupResource(), w.GetName(),
		fmt.Errorf("admission policies would be evaluated more than %d times, for all their bindings and params: have their paramRefs select fewer", maxInvocations))
}
