package webhook

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	admissionv1 "k8s.io/api/admission/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/apis/audit"

	"petrel.dev/petrel/hub/admission/match"
	"petrel.dev/petrel/hub/registry/patchcost"
	"petrel.dev/petrel/hub/weight"
)

// maxOperations bounds a patch, as that of a client.
const maxOperations = 10000

// Mutate asks the mutating webhooks one after another, and applies their patches to the write. It is one round of the request: in
// the second only those are asked that again selects.
func (c *Caller) Mutate(ctx context.Context, set *Set, w *match.Write, round int, again *match.Again) error {
	if w.Configures() {
		return nil
	}
	for _, g := range set.mutating {
		for _, h := range g.hooks {
			hit, ok, err := c.concerns(ctx, set, h, w)
			if err != nil {
				return err
			}
			if !ok || again.Skip(h.key) {
				continue
			}
			changed, err := c.mutate(ctx, h, w, hit, round)
			again.Ran(h.key, changed, h.again)
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// mutate asks one webhook and applies its patch.
func (c *Caller) mutate(ctx context.Context, h *hook, w *match.Write, hit match.Hit, round int) (changed bool, err error) {
	view, err := w.As(ctx, hit.Kind)
	if err != nil {
		return false, apierrors.NewInternalError(err)
	}
	began := time.Now()
	r, err := c.call(ctx, h, w, hit, view)
	h.note(ctx, w, r)
	if err == nil {
		if err = r.refusal(h.name); err == nil {
			changed, err = h.patch(ctx, w, view, r, round)
		}
	}
	h.noteMutation(w, changed, round)
	return changed, c.settle(ctx, h, w, round, time.Since(began), err)
}

// patch applies the patch of an answer. An error that is no *failedCall refuses the write whatever the failure policy.
func (h *hook) patch(ctx context.Context, w *match.Write, view *admission.VersionedAttributes, r *response, round int) (changed bool, err error) {
	if len(r.Patch) == 0 {
		return false, nil
	}
	ops, err := jsonpatch.DecodePatch(r.Patch)
	if err != nil {
		return false, &failedCall{h.name, fmt.Errorf("received undecodable patch in webhook response: %w", err), 503}
	}
	if len(ops) == 0 {
		return false, nil
	}
	if view.VersionedObject == nil {
		return false, apierrors.NewInternalError(fmt.Errorf("admission webhook %q attempted to modify the object, which is not supported for this operation", h.name))
	}
	if *r.PatchType != admissionv1.PatchTypeJSONPatch {
		return false, &failedCall{h.name, fmt.Errorf("unsupported patch type %q", *r.PatchType), 400}
	}
	next, err := apply(w, view, ops)
	if err != nil {
		return false, apierrors.NewInternalError(fmt.Errorf("admission webhook %q: %w", h.name, err))
	}
	changed = !equality.Semantic.DeepEqual(view.VersionedObject, next)
	h.notePatch(w, r.Patch, round)
	if !changed {
		return false, nil
	}
	return true, w.Replace(ctx, next)
}

// apply returns the object that a patch makes. The cost of a patch is bounded, and a patch that the library cannot stand is an
// error.
func apply(w *match.Write, view *admission.VersionedAttributes, ops jsonpatch.Patch) (next runtime.Object, err error) {
	if len(ops) > maxOperations {
		return nil, fmt.Errorf("the allowed maximum operations in a JSON patch is %d, got %d", maxOperations, len(ops))
	}
	now, err := json.Marshal(view.VersionedObject)
	if err != nil {
		return nil, err
	}
	if err := patchcost.JSON(now, ops); err != nil {
		return nil, err
	}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("apply patch: %v", p)
		}
	}()
	patched, err := ops.Apply(now)
	if err != nil {
		return nil, err
	}
	if err := weight.Check(patched, weight.ShapeOf(view.VersionedObject)); err != nil {
		return nil, err
	}
	return w.Decode(patched, view.VersionedKind)
}

// noteMutation annotates the write with whether the webhook changed it.
func (h *hook) noteMutation(w *match.Write, changed bool, round int) {
	b, err := json.Marshal(struct {
		Configuration string `json:"configuration"`
		Webhook       string `json:"webhook"`
		Mutated       bool   `json:"mutated"`
	}{h.configuration, h.name, changed})
	if err == nil {
		_ = w.AddAnnotation(fmt.Sprintf("mutation.webhook.admission.k8s.io/round_%d_index_%d", round, h.index), string(b))
	}
}

// notePatch annotates the write with the webhook's patch.
func (h *hook) notePatch(w *match.Write, patch json.RawMessage, round int) {
	b, err := json.Marshal(struct {
		Configuration string                `json:"configuration"`
		Webhook       string                `json:"webhook"`
		Patch         json.RawMessage       `json:"patch,omitempty"`
		PatchType     admissionv1.PatchType `json:"patchType,omitempty"`
	}{h.configuration, h.name, patch, admissionv1.PatchTypeJSONPatch})
	if err == nil {
		_ = w.AddAnnotationWithLevel(fmt.Sprintf("patch.webhook.admission.k8s.io/round_%d_index_%d", round, h.index), string(b), audit.LevelRequest)
	}
}
