package apiserver

import (
	"encoding/hex"
	"fmt"
	"reflect"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"petrel.dev/petrel/hub/apiserver/media"
	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

// decodeBody reads an object of the wanted kind. Unknown and duplicate fields are an error, a warning or nothing, by
// validation ("" means Warn).
func (x *exchange) decodeBody(body []byte, want bodyForm, validation string) (runtime.Object, error) {
	gvk := want.gvk
	strict := validation != metav1.FieldValidationIgnore
	s, form, err := x.s.codec.Input(x.r.Header.Get("Content-Type"), want.media, strict)
	if err != nil {
		return nil, err
	}
	obj, actual, err := x.parse(s, form, body, &gvk, want.into)
	obj, err = want.conform(obj, err, strict)
	if se, ok := runtime.AsStrictDecodingError(err); ok && obj != nil && validation != metav1.FieldValidationStrict {
		for _, e := range se.Errors() {
			for _, w := range strictWarnings(e.Error()) {
				x.warn(w)
			}
		}
		err = nil
	}
	if err == nil && actual != nil && *actual != gvk {
		if actual.GroupVersion() != gvk.GroupVersion() && actual.Kind == gvk.Kind {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("the API version in the data (%s) does not match the expected API version (%s)", actual.GroupVersion(), gvk.GroupVersion()))
		}
		err = fmt.Errorf("converting (%s) to (%s): unknown conversion", reflect.TypeOf(obj).Elem(), internalName(gvk))
	}
	if apierrors.IsRequestEntityTooLargeError(err) || apierrors.IsTooManyRequests(err) {
		return nil, err
	}
	if err != nil {
		return nil, decodeError(err, gvk, actual, body)
	}
	obj.GetObjectKind().SetGroupVersionKind(gvk)
	return obj, nil
}

// internalName returns the name of upstream's internal type in conversion errors: core.Pod, apps.Deployment.
func internalName(gvk schema.GroupVersionKind) string {
	group, _, _ := strings.Cut(gvk.Group, ".")
	if group == "" {
		group = "core"
	}
	return group + "." + gvk.Kind
}

// decodeError returns the error of a body that cannot be decoded, with upstream's text: clients, and their tests, match on it.
func decodeError(err error, want schema.GroupVersionKind, actual *schema.GroupVersionKind, body []byte) error {
	if actual != nil && actual.Kind != "" {
		return apierrors.NewBadRequest(fmt.Sprintf("%s in version %q cannot be handled as a %s: %v", actual.Kind, actual.Version, want.Kind, err))
	}
	return apierrors.NewBadRequest(fmt.Sprintf("the object provided is unrecognized (must be of type %s): %v (%s)", want.Kind, err, summary(body)))
}

// summary returns the beginning of a body for an error text: as text when it is JSON, otherwise as hexadecimal.
func summary(data []byte) string {
	const limit = 30
	cut, more := data, ""
	if len(data) > limit {
		cut, more = data[:limit], " ..."
	}
	switch {
	case len(data) == 0:
		return "<empty>"
	case data[0] == '{':
		return string(cut) + more
	}
	return hex.EncodeToString(cut) + more
}

// strictWarnings splits the YAML decoder's joined errors into one warning each.
func strictWarnings(s string) []string {
	for _, prefix := range []string{"error unmarshaling JSON: while decoding JSON: yaml: unmarshal errors:\n", "yaml: unmarshal errors:\n", "error converting YAML to JSON: yaml: unmarshal errors:\n"} {
		if rest, ok := strings.CutPrefix(s, prefix); ok {
			lines := strings.Split(rest, "\n")
			for i := range lines {
				lines[i] = strings.TrimSpace(lines[i])
			}
			return lines
		}
	}
	return []string{s}
}

// bodyForm is the form of the body of a write to a target.
type bodyForm struct {
	gvk   schema.GroupVersionKind
	into  runtime.Object
	media []string       // that it can be read from
	codec resource.Codec // nil: no object of the target's kind
}

// bodyOf returns the form of the body of a write to an object or subresource.
func bodyOf(k *resource.Kind, sub *resource.Subresource) bodyForm {
	if sub != nil && sub.New != nil {
		return bodyForm{gvk: sub.GVK, into: sub.New(), media: media.All}
	}
	return bodyForm{gvk: k.GVK, into: k.New(), media: media.Of(k), codec: k.Codec}
}

// conform brings what a serializer has read into the form of the kind's objects. err is the serializer's; if strict, unknown fields
// that are found here become part of it.
func (f bodyForm) conform(obj runtime.Object, err error, strict bool) (runtime.Object, error) {
	found, forgiven := runtime.AsStrictDecodingError(err)
	o, ok := obj.(kube.Object)
	if f.codec == nil || !ok || err != nil && !forgiven {
		return obj, err
	}
	unknown, cerr := f.codec.Conform(o)
	switch {
	case cerr != nil:
		return nil, cerr
	case len(unknown) == 0 || !strict:
		return obj, err
	case forgiven:
		unknown = append(found.Errors(), unknown...)
	}
	return obj, runtime.NewStrictDecodingError(unknown)
}
