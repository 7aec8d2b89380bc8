package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/mergepatch"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/apimachinery/pkg/util/validation/field"
	kjson "sigs.k8s.io/json"

	"petrel.dev/petrel/hub/auth"
	"petrel.dev/petrel/hub/registry/patchcost"
	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

// heavyPatch is the size of patch and object, in bytes, from which patches are applied one at a time.
const heavyPatch = 64 << 10

// maxPatchOperations bounds a JSON patch, as in Kubernetes.
const maxPatchOperations = 10000

// A JSON patch can copy a list into itself: each such operation doubles the document, so that two kilobytes of them would
// use all memory. The library's bound is a variable of its package. What is copied may be as large as a body.
func init() { jsonpatch.AccumulatedCopySizeLimit = maxObject }

// Patch applies a patch to the current object, again to the new current one when another write came between.
func (r *Registry) Patch(ctx context.Context, t resource.Target, pt types.PatchType, patch []byte, opts *metav1.PatchOptions) (*Result, error) {
	if opts == nil {
		opts = &metav1.PatchOptions{}
	}
	if accepted := t.Kind.PatchTypes(); !slices.Contains(accepted, pt) {
		return nil, unsupportedPatch(pt, accepted)
	}
	if err := InvalidOptions("PatchOptions", validation.ValidatePatchOptions(opts, pt)); err != nil {
		return nil, err
	}
	ctx, q, err := r.resolve(ctx, "patch", t, options{manager: opts.FieldManager, dryRun: opts.DryRun})
	if err != nil {
		return nil, err
	}
	p := patcher{kind: pt, patch: patch, validation: opts.FieldValidation, turn: func(size int) (func(), error) { return r.turn(ctx, size) }}
	if q.sub != nil && q.sub.Put != nil {
		res, err := r.changeDerived(ctx, q, func(cur *current) (runtime.Object, error) {
			now, err := derived(q.sub, cur.obj)
			if err != nil {
				return nil, err
			}
			return p.apply(now.JSON, q.sub.New())
		})
		return p.warn(res), err
	}
	_, res, err := r.change(ctx, q, func(cur *current) (*plan, error) {
		if cur == nil {
			return nil, notFound(t.Kind, t.Name)
		}
		obj, err := r.patched(ctx, t.Kind, cur, &p)
		if err != nil {
			return nil, err
		}
		if err := checkName(t, obj); err != nil {
			return nil, err
		}
		return r.planUpdate(ctx, q, cur, obj, nil)
	})
	return p.warn(res), err
}

// patched returns the object that results from the patch of the current one, in the version in which it is decided.
func (r *Registry) patched(ctx context.Context, k *resource.Kind, cur *current, p *patcher) (kube.Object, error) {
	now, err := r.nowOf(ctx, k, cur)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	p.of = k
	body, err := p.apply(now, k.New())
	if err != nil {
		return nil, err
	}
	obj, _ := asKube(body)
	obj.GetObjectKind().SetGroupVersionKind(k.GVK)
	if obj, err = k.ToWorking(ctx, obj); err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	return obj, nil
}

// nowOf returns the JSON that a patch of an object of k applies to.
func (r *Registry) nowOf(ctx context.Context, k *resource.Kind, cur *current) ([]byte, error) {
	if k == k.Working() && !k.AsStored() {
		return encodeBody(cur.obj)
	}
	return r.view(ctx, k, cur.entry.Key, cur.entry.Rev, cur.entry.Value)
}

// patcher is one patch request. warnings are those of the last application.
type patcher struct {
	of         *resource.Kind // of the objects that are patched; nil for a derived body, such as a Scale
	kind       types.PatchType
	patch      []byte
	validation string // fieldValidation: Ignore, Warn (also ""), Strict
	warnings   []string
	turn       func(size int) (done func(), err error) // waits until so many bytes may be patched; nil: at once
}

// strict reports whether unknown and repeated fields are looked for: to refuse them, or to warn of them.
func (p *patcher) strict() bool { return p.validation != metav1.FieldValidationIgnore }

// warn puts the patch's warnings before those of its result.
func (p *patcher) warn(res *Result) *Result {
	if res != nil {
		res.Warnings = append(p.warnings, res.Warnings...)
	}
	return res
}

// apply patches the JSON now, and decodes the result as into's type.
func (p *patcher) apply(now []byte, into runtime.Object) (runtime.Object, error) {
	p.warnings = nil
	if p.turn != nil {
		done, err := p.turn(len(now) + len(p.patch))
		if err != nil {
			return nil, err
		}
		defer done()
	}
	if p.kind == types.StrategicMergePatchType {
		return p.strategic(now, into)
	}
	next, strictErrs, err := p.json(now)
	if err != nil {
		return nil, err
	}
	into, forgiven, err := p.decode(next, into)
	if err != nil {
		return nil, badPatch(string(next), err)
	}
	return into, p.judge(string(next), append(strictErrs, forgiven...))
}

// decode decodes the result of a patch as into's type. forgiven are unknown and repeated fields, for judge.
func (p *patcher) decode(next []byte, into runtime.Object) (obj runtime.Object, forgiven []error, err error) {
	if p.of != nil {
		return decodeStrict(p.of, next)
	}
	if !p.strict() {
		return into, nil, kjson.UnmarshalCaseSensitivePreserveInts(next, into)
	}
	forgiven, err = kjson.UnmarshalStrict(next, into)
	return into, forgiven, err
}

func decodeStrict(k *resource.Kind, data []byte) (runtime.Object, []error, error) {
	obj, forgiven, err := k.DecodeStrict(data)
	if err != nil {
		return nil, nil, err
	}
	return obj, forgiven, nil
}

// json applies a JSON patch or a merge patch.
func (p *patcher) json(now []byte) (next []byte, strictErrs []error, err error) {
	if p.kind == types.MergePatchType {
		if p.strict() {
			v := map[string]any{}
			if strictErrs, err = kjson.UnmarshalStrict(p.patch, &v); err != nil {
				return nil, nil, apierrors.NewBadRequest(fmt.Sprintf("error decoding patch: %v", err))
			}
		}
		next, err = contained(func() ([]byte, error) { return jsonpatch.MergePatch(now, p.patch) })
		if errors.Is(err, jsonpatch.ErrBadJSONPatch) {
			return nil, nil, apierrors.NewBadRequest(err.Error())
		}
		if err != nil {
			return nil, nil, statusOr(err)
		}
		return next, strictErrs, nil
	}
	if p.strict() {
		var v []struct {
			Op    string `json:"op"`
			Path  string `json:"path"`
			From  string `json:"from"`
			Value any    `json:"value"`
		}
		if strictErrs, err = kjson.UnmarshalStrict(p.patch, &v); err != nil {
			return nil, nil, apierrors.NewBadRequest(fmt.Sprintf("error decoding patch: %v", err))
		}
		for i, e := range strictErrs {
			strictErrs[i] = fmt.Errorf("json patch %w", e)
		}
	}
	ops, err := jsonpatch.DecodePatch(p.patch)
	if err != nil {
		return nil, nil, apierrors.NewBadRequest(err.Error())
	}
	if len(ops) > maxPatchOperations {
		return nil, nil, apierrors.NewRequestEntityTooLargeError(
			fmt.Sprintf("The allowed maximum operations in a JSON patch is %d, got %d", maxPatchOperations, len(ops)))
	}
	if err := patchcost.JSON(now, ops); err != nil {
		return nil, nil, err
	}
	if next, err = contained(func() ([]byte, error) { return ops.Apply(now) }); err != nil {
		return nil, nil, unprocessable(err)
	}
	return next, strictErrs, nil
}

// contained runs a patch library on what a client sent. Some senseless patches ($retainKeys of lists, replacing the whole document
// by nothing) make the libraries panic; the client gets the error of a patch that does not fit.
func contained[T any](apply func() (T, error)) (out T, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = unprocessable(fmt.Errorf("apply patch: %v", p))
		}
	}()
	return apply()
}

// strategic applies a strategic merge patch by the struct tags of into's type.
func (p *patcher) strategic(now []byte, into runtime.Object) (runtime.Object, error) {
	original, patch := map[string]any{}, map[string]any{}
	if err := kjson.UnmarshalCaseSensitivePreserveInts(now, &original); err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	var strictErrs []error
	var err error
	if p.strict() {
		strictErrs, err = kjson.UnmarshalStrict(p.patch, &patch)
	} else {
		err = kjson.UnmarshalCaseSensitivePreserveInts(p.patch, &patch)
	}
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	schema, err := strategicpatch.NewPatchMetaFromStruct(into)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	if err := patchcost.Strategic(original, patch, schema); err != nil {
		return nil, err
	}
	merged, err := contained(func() (strategicpatch.JSONMap, error) {
		return strategicpatch.StrategicMergeMapPatch(original, patch, into)
	})
	switch {
	case err == nil:
	case errors.Is(err, mergepatch.ErrBadJSONDoc), errors.Is(err, mergepatch.ErrBadPatchFormatForPrimitiveList),
		errors.Is(err, mergepatch.ErrBadPatchFormatForRetainKeys), errors.Is(err, mergepatch.ErrBadPatchFormatForSetElementOrderList),
		errors.Is(err, mergepatch.ErrUnsupportedStrategicMergePatchFormat):
		return nil, apierrors.NewBadRequest(err.Error())
	case errors.Is(err, mergepatch.ErrNoListOfLists), errors.Is(err, mergepatch.ErrPatchContentNotMatchRetainKeys):
		return nil, unprocessable(err)
	default:
		return nil, statusOr(err)
	}
	err = runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(merged, into, p.strict())
	if err != nil {
		unknown, isStrict := runtime.AsStrictDecodingError(err)
		if !isStrict {
			return nil, badPatch(fmt.Sprintf("%+v", patch), err)
		}
		strictErrs = append(strictErrs, unknown.Errors()...)
	}
	return into, p.judge(fmt.Sprintf("%+v", patch), strictErrs)
}

// judge refuses, or warns of, unknown and repeated fields.
func (p *patcher) judge(value string, strictErrs []error) error {
	if len(strictErrs) == 0 || p.validation == metav1.FieldValidationIgnore {
		return nil
	}
	if p.validation == metav1.FieldValidationStrict {
		return badPatch(value, runtime.NewStrictDecodingError(strictErrs))
	}
	for _, e := range strictErrs {
		p.warnings = append(p.warnings, e.Error())
	}
	return nil
}

// badPatch returns the 422 for a patch with an invalid value.
func badPatch(value string, err error) error {
	return apierrors.NewInvalid(schema.GroupKind{}, "", field.ErrorList{field.Invalid(field.NewPath("patch"), value, err.Error())})
}

// statusOr returns err when it is a status, and otherwise one with its text alone, as Kubernetes does.
func statusOr(err error) error {
	if _, ok := err.(apierrors.APIStatus); ok {
		return err
	}
	return plainError(err.Error())
}

// unprocessable returns the 422 for a patch that does not fit the object.
func unprocessable(err error) error {
	return apierrors.NewGenericServerResponse(http.StatusUnprocessableEntity, "", schema.GroupResource{}, "", err.Error(), 0, false)
}

// unsupportedPatch returns the 415 that names the patch types of the kind.
func unsupportedPatch(pt types.PatchType, accepted []types.PatchType) error {
	names := make([]string, len(accepted))
	for i, a := range accepted {
		names[i] = string(a)
	}
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusUnsupportedMediaType, Reason: metav1.StatusReasonUnsupportedMediaType,
		Message: fmt.Sprintf("the body of the request was in an unknown format - accepted media types include: %s (got %s)", strings.Join(names, ", "), pt),
	}}
}

// turn waits until a large patch may be applied: one at a time, so that patches have one core of the machine at most. Users
// take turns, parts of the hub too. done must be called.
func (r *Registry) turn(ctx context.Context, size int) (done func(), err error) {
	if size < heavyPatch {
		return func() {}, nil
	}
	done, err = r.patching.Acquire(ctx, auth.UserFrom(ctx).Name)
	if err != nil {
		return nil, apierrors.NewTimeoutError("other large patches are being applied; try again later", 2)
	}
	return done, nil
}
