// Package conversion converts custom resources between their versions: by nothing but another name, or by the webhook that
// their definition names.
package conversion

import (
	"encoding/json"
	"errors"
	"fmt"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

// The versions of ConversionReview that the hub speaks; of those that a definition lists, the first counts. They differ in nothing but
// their name, and in that answers of the older one need not say which request they answer.
const (
	reviewV1      = "v1"
	reviewV1beta1 = "v1beta1"
)

// reviewVersion returns the first of versions that the hub speaks.
func reviewVersion(versions []string) (string, error) {
	for _, v := range versions {
		if v == reviewV1 || v == reviewV1beta1 {
			return v, nil
		}
	}
	return "", errors.New("no supported conversion review versions")
}

// request returns the JSON of a ConversionReview that asks for objs in version to.
func request(version string, uid types.UID, objs []*unstructured.Unstructured, to schema.GroupVersion) ([]byte, error) {
	review := apiextensionsv1.ConversionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: apiextensionsv1.GroupName + "/" + version, Kind: "ConversionReview"},
		Request:  &apiextensionsv1.ConversionRequest{UID: uid, DesiredAPIVersion: to.String(), Objects: make([]runtime.RawExtension, len(objs))},
	}
	for i, obj := range objs {
		review.Request.Objects[i].Object = obj
	}
	return json.Marshal(review)
}

// response returns the objects of an answer to the request uid.
func response(version string, uid types.UID, body []byte) ([]runtime.RawExtension, error) {
	var review apiextensionsv1.ConversionReview
	if err := json.Unmarshal(body, &review); err != nil {
		return nil, fmt.Errorf("decode response: %w", err)
	}
	if version == reviewV1 {
		if want := apiextensionsv1.SchemeGroupVersion.WithKind("ConversionReview"); review.GroupVersionKind() != want {
			return nil, fmt.Errorf("expected webhook response of %v, got %v", want, review.GroupVersionKind())
		}
	}
	r := review.Response
	switch {
	case r == nil:
		return nil, errors.New("no response provided")
	case version == reviewV1 && r.UID != uid:
		return nil, fmt.Errorf("expected response.uid=%q, got %q", uid, r.UID)
	case r.Result.Status != metav1.StatusSuccess && r.Result.Message != "":
		return nil, errors.New(r.Result.Message)
	case r.Result.Status != metav1.StatusSuccess:
		return nil, fmt.Errorf("response.result.status was '%s', not 'Success'", r.Result.Status)
	}
	return r.ConvertedObjects, nil
}
