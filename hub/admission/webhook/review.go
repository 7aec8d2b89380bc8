package webhook

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	admissionv1 "k8s.io/api/admission/v1"
	admissionv1beta1 "k8s.io/api/admission/v1beta1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apiserver/pkg/admission"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"

	"petrel.dev/petrel/hub/admission/match"
	"petrel.dev/petrel/hub/weight"
)

// response is the answer of a webhook, in any version of AdmissionReview.
type response struct {
	*admissionv1.AdmissionResponse
	kind metav1.TypeMeta
}

// reviewVersion returns the first version of AdmissionReview that both sides know.
func reviewVersion(accepted []string) (string, error) {
	for _, v := range accepted {
		switch v {
		case admissionv1.SchemeGroupVersion.Version:
			return admissionv1.SchemeGroupVersion.String(), nil
		case admissionv1beta1.SchemeGroupVersion.Version:
			return admissionv1beta1.SchemeGroupVersion.String(), nil
		}
	}
	return "", errors.New("webhook does not accept known AdmissionReview versions (v1, v1beta1)")
}

// newReview returns the question. Both versions have the same form.
func newReview(version string, w *match.Write, hit match.Hit, view *admission.VersionedAttributes) *admissionv1.AdmissionReview {
	q := plugincel.CreateAdmissionRequest(w, metav1.GroupVersionResource(hit.Resource), metav1.GroupVersionKind(hit.Kind))
	q.UID = uuid.NewUUID()
	q.Object = runtime.RawExtension{Object: view.VersionedObject}
	q.OldObject = runtime.RawExtension{Object: view.VersionedOldObject}
	return &admissionv1.AdmissionReview{TypeMeta: metav1.TypeMeta{Kind: "AdmissionReview", APIVersion: version}, Request: q}
}

// readReview reads an answer.
func readReview(body []byte, version string) (*response, error) {
	if len(body) == 0 {
		return nil, errors.New("0-length response")
	}
	var review admissionv1.AdmissionReview
	if err := weight.Check(body, weight.ShapeOf(&review)); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(body, &review); err != nil {
		return nil, fmt.Errorf("couldn't get version/kind; json parse error: %w", err)
	}
	return &response{review.Response, review.TypeMeta}, nil
}

// verify returns what is wrong with an answer. v1beta1 does not ask for as much as v1.
func (r *response) verify(uid types.UID, version string, mutating bool) error {
	if r.AdmissionResponse == nil {
		return errors.New("webhook response was absent")
	}
	if version != admissionv1.SchemeGroupVersion.String() {
		if kind := admissionv1.PatchTypeJSONPatch; mutating && len(r.Patch) > 0 {
			r.PatchType = &kind
		}
		return nil
	}
	if r.UID != uid {
		return fmt.Errorf("expected response.uid=%q, got %q", uid, r.UID)
	}
	if want := admissionv1.SchemeGroupVersion.WithKind("AdmissionReview"); r.kind.GroupVersionKind() != want {
		return fmt.Errorf("expected webhook response of %v, got %v", want, r.kind.GroupVersionKind())
	}
	if !mutating {
		if len(r.Patch) > 0 {
			return errors.New("validating webhook may not return response.patch")
		}
		if r.PatchType != nil {
			return errors.New("validating webhook may not return response.patchType")
		}
		return nil
	}
	switch {
	case len(r.Patch) > 0 && r.PatchType == nil:
		return errors.New("webhook returned response.patch but not response.patchType")
	case len(r.Patch) == 0 && r.PatchType != nil:
		return errors.New("webhook returned response.patchType but not response.patch")
	case r.PatchType != nil && *r.PatchType == "":
		return fmt.Errorf("webhook returned invalid response.patchType of %q", *r.PatchType)
	}
	return nil
}

// refusal returns the Status of a write that a webhook does not allow; nil when it does.
func (r *response) refusal(name string) error {
	if r.Allowed {
		return nil
	}
	s := metav1.Status{}
	if r.Result != nil {
		s = *r.Result
	}
	s.Status = metav1.StatusFailure
	if s.Code < http.StatusBadRequest || s.Code > 599 { // which is no code of a refusal; net/http panics at some of them
		s.Code = http.StatusBadRequest
	}
	by := fmt.Sprintf("admission webhook %q denied the request", name)
	switch {
	case s.Message != "":
		s.Message = by + ": " + s.Message
	case s.Reason != "":
		s.Message = by + ": " + string(s.Reason)
	default:
		s.Message = by + " without explanation"
	}
	return &apierrors.StatusError{ErrStatus: s}
}
