package conversion

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"petrel.dev/petrel/hub/webhook"
)

// caller answers calls by a function of the review, and records where they went.
type caller struct {
	target webhook.Target
	sizes  []int // objects of each call
	answer func(*apiextensionsv1.ConversionReview)
}

func (c *caller) Call(_ context.Context, t webhook.Target, body []byte, limit int64) ([]byte, error) {
	var review apiextensionsv1.ConversionReview
	if err := json.Unmarshal(body, &review); err != nil {
		return nil, err
	}
	c.target, c.sizes = t, append(c.sizes, len(review.Request.Objects))
	review.Response = &apiextensionsv1.ConversionResponse{UID: review.Request.UID, Result: metav1.Status{Status: metav1.StatusSuccess}}
	for _, o := range review.Request.Objects {
		u := &unstructured.Unstructured{}
		if err := u.UnmarshalJSON(o.Raw); err != nil {
			return nil, err
		}
		u.SetAPIVersion(review.Request.DesiredAPIVersion)
		review.Response.ConvertedObjects = append(review.Response.ConvertedObjects, runtime.RawExtension{Object: u})
	}
	if c.answer != nil {
		c.answer(&review)
	}
	review.Request = nil
	return json.Marshal(review)
}

func byService(port int32, versions ...string) *apiextensionsv1.CustomResourceConversion {
	path := "/convert"
	return &apiextensionsv1.CustomResourceConversion{Strategy: apiextensionsv1.WebhookConverter, Webhook: &apiextensionsv1.WebhookConversion{
		ConversionReviewVersions: versions,
		ClientConfig: &apiextensionsv1.WebhookClientConfig{CABundle: []byte(" pem\n"),
			Service: &apiextensionsv1.ServiceReference{Namespace: "ns", Name: "svc", Port: &port, Path: &path}},
	}}
}

func thing(name string, size int) *unstructured.Unstructured {
	u := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "example.dev/v1", "kind": "Thing", "pad": strings.Repeat("x", size)}}
	u.SetName(name)
	u.SetLabels(map[string]string{"a": "b"})
	u.SetFinalizers([]string{"example.dev/x"})
	return u
}

var v2 = schema.GroupVersion{Group: "example.dev", Version: "v2"}

func TestServiceIsCalled(t *testing.T) {
	c := &caller{}
	out, err := New(byService(8443, "v7", "v1"), c).Convert(t.Context(), []*unstructured.Unstructured{thing("a", 1)}, v2)
	if err != nil || out[0].GetAPIVersion() != "example.dev/v2" {
		t.Fatal(out, err)
	}
	if want := (webhook.Target{Namespace: "ns", Name: "svc", Port: 8443, Path: "/convert", CABundle: "pem"}); c.target != want {
		t.Errorf("called %+v", c.target)
	}
	if _, err := New(byService(1, "v7"), c).Convert(t.Context(), []*unstructured.Unstructured{thing("a", 1)}, v2); err == nil || err.Error() != "no supported conversion review versions" {
		t.Errorf("a review of no known version: %v", err)
	}
}

// Many objects are converted in as many calls as their size needs, and keep their order.
func TestLargeListsAreSplit(t *testing.T) {
	c := &caller{}
	var objs []*unstructured.Unstructured
	for i := range 10 {
		objs = append(objs, thing(fmt.Sprint(i), maxBatch/4))
	}
	out, err := New(byService(443, "v1"), c).Convert(t.Context(), objs, v2)
	if err != nil || len(out) != 10 || out[9].GetName() != "9" {
		t.Fatal(len(out), err)
	}
	if fmt.Sprint(c.sizes) != "[4 4 2]" {
		t.Errorf("objects of each call: %v", c.sizes)
	}
}

// Of the metadata a webhook decides labels and annotations, if they are ones that an object may have.
func TestMetadataIsTheOriginals(t *testing.T) {
	convert := func(change func(*unstructured.Unstructured)) (*unstructured.Unstructured, error) {
		c := &caller{answer: func(r *apiextensionsv1.ConversionReview) {
			change(r.Response.ConvertedObjects[0].Object.(*unstructured.Unstructured))
		}}
		out, err := New(byService(443, "v1"), c).Convert(t.Context(), []*unstructured.Unstructured{thing("a", 1)}, v2)
		if err != nil {
			return nil, err
		}
		return out[0], nil
	}
	u, err := convert(func(u *unstructured.Unstructured) {
		u.SetFinalizers(nil)
		u.SetGeneration(7)
		u.SetLabels(map[string]string{"c": "d"})
		u.SetAnnotations(map[string]string{"e": "f"})
	})
	if err != nil || len(u.GetFinalizers()) != 1 || u.GetGeneration() != 0 || u.GetLabels()["c"] != "d" || u.GetLabels()["a"] != "" || u.GetAnnotations()["e"] != "f" {
		t.Errorf("%v, %v", u, err)
	}
	for name, tt := range map[string]struct {
		change func(*unstructured.Unstructured)
		says   string
	}{
		"label": {func(u *unstructured.Unstructured) { u.SetLabels(map[string]string{"a b": "c"}) }, "metadata.labels: Invalid value"},
		"label type": {func(u *unstructured.Unstructured) {
			u.Object["metadata"].(map[string]any)["labels"] = map[string]any{"a": 1}
		}, "metadata.labels[a] must be a string, but is int64"},
		"labels type": {func(u *unstructured.Unstructured) { u.Object["metadata"].(map[string]any)["labels"] = "x" }, "invalid metadata.labels of type string"},
		"version":     {func(u *unstructured.Unstructured) { u.SetAPIVersion("example.dev/v3") }, "invalid groupVersion (expected example.dev/v2, received example.dev/v3)"},
		"kind":        {func(u *unstructured.Unstructured) { u.SetKind("Other") }, "must have the same kind: Thing != Other"},
		"uid":         {func(u *unstructured.Unstructured) { u.SetUID("x") }, "must have the same UID"},
	} {
		if _, err := convert(tt.change); err == nil || !strings.Contains(err.Error(), tt.says) || !strings.Contains(err.Error(), "conversion webhook for example.dev/v1, Kind=Thing returned invalid") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
