// Package patch applies JSON patches, merge patches and strategic merge patches to an object's JSON, with upstream's libraries and its
// texts. What they would cost is estimated before (patchcost), because nothing stops the libraries once they run.
package patch

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/mergepatch"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/apimachinery/pkg/util/validation/field"
	kjson "sigs.k8s.io/json"

	"petrel.dev/petrel/hub/registry/patchcost"
	"petrel.dev/petrel/hub/registry/status"
	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

const (
	// maxOperations bounds a JSON patch, as in Kubernetes.
	maxOperations = 10000
	// maxCopied bounds what a JSON patch copies, in bytes: as much as a body has.
	maxCopied = 3 << 20
)

// A JSON patch can copy a list into itself: each such operation doubles the document, so that two kilobytes of them would
// use all memory. The library's bound is a variable of its package.
func init() { jsonpatch.AccumulatedCopySizeLimit = maxCopied }

// Patch is one patch request. Warnings are those of the last application.
type Patch struct {
	Of         *resource.Kind // of the objects that are patched; nil for a derived body, such as a Scale
	Type       types.PatchType
	Body       []byte
	Validation string // fieldValidation: Ignore, Warn (also ""), Strict
	Warnings   []string
	Turn       func(size int) (done func(), err error) // waits until so many bytes may be patched; nil: at once
}

// strict reports whether unknown and repeated fields are looked for: to refuse them, or to warn of them.
func (p *Patch) strict() bool { return p.Validation != metav1.FieldValidationIgnore }

// Apply patches the JSON now, and decodes the result as into's type.
func (p *Patch) Apply(now []byte, into runtime.Object) (runtime.Object, error) {
	p.Warnings = nil
	if p.Turn != nil {
		done, err := p.Turn(len(now) + len(p.Body))
		if err != nil {
			return nil, err
		}
		defer done()
	}
	if p.Type == types.StrategicMergePatchType {
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
func (p *Patch) decode(next []byte, into runtime.Object) (obj runtime.Object, forgiven []error, err error) {
	if p.Of != nil {
		return decodeStrict(p.Of, next)
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

// jsonPatchOp is one operation of a JSON patch. Its name is in the errors of the decoder, which clients know with the package that
// upstream's type is in.
type jsonPatchOp struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	From  string `json:"from"`
	Value any    `json:"value"`
}

// json applies a JSON patch or a merge patch.
func (p *Patch) json(now []byte) (next []byte, strictErrs []error, err error) {
	if p.Type == types.MergePatchType {
		if p.strict() {
			v := map[string]any{}
			if strictErrs, err = kjson.UnmarshalStrict(p.Body, &v); err != nil {
				return nil, nil, apierrors.NewBadRequest(fmt.Sprintf("error decoding patch: %v", err))
			}
		}
		next, err = contained(func() ([]byte, error) { return jsonpatch.MergePatch(now, p.Body) })
		if errors.Is(err, jsonpatch.ErrBadJSONPatch) {
			return nil, nil, apierrors.NewBadRequest(err.Error())
		}
		if err != nil {
			return nil, nil, status.Or(err)
		}
		return next, strictErrs, nil
	}
	if p.strict() {
		var v []jsonPatchOp
		if strictErrs, err = kjson.UnmarshalStrict(p.Body, &v); err != nil {
			return nil, nil, apierrors.NewBadRequest("error decoding patch: " + strings.ReplaceAll(err.Error(), "patch.jsonPatchOp", "handlers.jsonPatchOp"))
		}
		for i, e := range strictErrs {
			strictErrs[i] = fmt.Errorf("json patch %w", e)
		}
	}
	ops, err := jsonpatch.DecodePatch(p.Body)
	if err != nil {
		return nil, nil, apierrors.NewBadRequest(err.Error())
	}
	if len(ops) > maxOperations {
		return nil, nil, apierrors.NewRequestEntityTooLargeError(
			fmt.Sprintf("The allowed maximum operations in a JSON patch is %d, got %d", maxOperations, len(ops)))
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
func (p *Patch) strategic(now []byte, into runtime.Object) (runtime.Object, error) {
	original, patch := map[string]any{}, map[string]any{}
	if err := kjson.UnmarshalCaseSensitivePreserveInts(now, &original); err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	var strictErrs []error
	var err error
	if p.strict() {
		strictErrs, err = kjson.UnmarshalStrict(p.Body, &patch)
	} else {
		err = kjson.UnmarshalCaseSensitivePreserveInts(p.Body, &patch)
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
		return nil, status.Or(err)
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
func (p *Patch) judge(value string, strictErrs []error) error {
	if len(strictErrs) == 0 || p.Validation == metav1.FieldValidationIgnore {
		return nil
	}
	if p.Validation == metav1.FieldValidationStrict {
		return badPatch(value, runtime.NewStrictDecodingError(strictErrs))
	}
	for _, e := range strictErrs {
		p.Warnings = append(p.Warnings, e.Error())
	}
	return nil
}

// badPatch returns the 422 for a patch with an invalid value.
func badPatch(value string, err error) error {
	return kube.NewInvalid(schema.GroupKind{}, "", field.ErrorList{field.Invalid(field.NewPath("patch"), value, err.Error())})
}

// unprocessable returns the 422 for a patch that does not fit the object.
func unprocessable(err error) error {
	return apierrors.NewGenericServerResponse(http.StatusUnprocessableEntity, "", schema.GroupResource{}, "", err.Error(), 0, false)
}

// Unsupported returns the 415 that names the patch types of the kind.
func Unsupported(pt types.PatchType, accepted []types.PatchType) error {
	names := make([]string, len(accepted))
	for i, a := range accepted {
		names[i] = string(a)
	}
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusUnsupportedMediaType, Reason: metav1.StatusReasonUnsupportedMediaType,
		Message: fmt.Sprintf("the body of the request was in an unknown format - accepted media types include: %s (got %s)", strings.Join(names, ", "), pt),
	}}
}
