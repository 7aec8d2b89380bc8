// Package conversion converts custom resources between their versions: by nothing but another name, or by the webhook that
// their definition names.
package conversion

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

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

// answer is a ConversionReview as far as it answers. Nothing in it is decoded to more than its bytes.
type answer struct {
	metav1.TypeMeta `json:",inline"`

	Response *struct {
		UID              types.UID       `json:"uid"`
		ConvertedObjects json.RawMessage `json:"convertedObjects"`
		Result           struct {
			Status  string `json:"status"`
			Message string `json:"message"`
		} `json:"result"`
	} `json:"response"`
}

// response returns the objects of an answer to the request uid, as JSON, of which want are expected. n is how many there are; of more
// than want none is returned.
func response(version string, uid types.UID, body []byte, want int) (objs []json.RawMessage, n int, err error) {
	var review answer
	if err := json.Unmarshal(body, &review); err != nil {
		return nil, 0, fmt.Errorf("decode response: %w", err)
	}
	if version == reviewV1 {
		if want := apiextensionsv1.SchemeGroupVersion.WithKind("ConversionReview"); review.GroupVersionKind() != want {
			return nil, 0, fmt.Errorf("expected webhook response of %v, got %v", want, review.GroupVersionKind())
		}
	}
	r := review.Response
	switch {
	case r == nil:
		return nil, 0, errors.New("no response provided")
	case version == reviewV1 && r.UID != uid:
		return nil, 0, fmt.Errorf("expected response.uid=%q, got %q", uid, r.UID)
	case r.Result.Status != metav1.StatusSuccess && r.Result.Message != "":
		return nil, 0, errors.New(short(r.Result.Message))
	case r.Result.Status != metav1.StatusSuccess:
		return nil, 0, fmt.Errorf("response.result.status was '%s', not 'Success'", short(r.Result.Status))
	}
	if n, err = count(r.ConvertedObjects); err != nil || n != want {
		return nil, n, err
	}
	err = json.Unmarshal(r.ConvertedObjects, &objs)
	return objs, n, err
}

// count returns how many elements a list in JSON has; 0 for none at all. Three bytes of it can be an element.
func count(list json.RawMessage) (n int, err error) {
	if len(list) == 0 || string(list) == "null" {
		return 0, nil
	}
	d := json.NewDecoder(bytes.NewReader(list))
	if t, err := d.Token(); err != nil || t != json.Delim('[') {
		return 0, errors.New("decode response: convertedObjects is no list")
	}
	for ; d.More(); n++ {
		if err := d.Decode(&nothing{}); err != nil {
			return n, fmt.Errorf("decode response: %w", err)
		}
	}
	return n, nil
}

// nothing is JSON that is read and not kept.
type nothing struct{}

// UnmarshalJSON implements json.Unmarshaler.
func (*nothing) UnmarshalJSON([]byte) error { return nil }

// maxMessage bounds what an error shows of a webhook's message, in bytes.
const maxMessage = 2048

func short(message string) string {
	if len(message) <= maxMessage {
		return message
	}
	return strings.ToValidUTF8(message[:maxMessage], "") + "..."
}
