package apiserver_test

import (
	"encoding/json"
	"net/http"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/cbor"
	kjson "k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"

	"petrel.dev/petrel/hub/resource"
)

// TestFormsOfErrors checks that an error comes in the form that the client accepts: in JSON where that is as good as another, and whatever
// shape of an object is asked for.
func TestFormsOfErrors(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	s := resource.Scheme()
	const pb, meta = "application/vnd.kubernetes.protobuf", ";as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
	readers := map[string]runtime.Decoder{
		"application/json": kjson.NewSerializerWithOptions(kjson.DefaultMetaFactory, s, s, kjson.SerializerOptions{}),
		"application/yaml": kjson.NewSerializerWithOptions(kjson.DefaultMetaFactory, s, s, kjson.SerializerOptions{Yaml: true}),
		pb:                 protobuf.NewSerializer(s, s), "application/cbor": cbor.NewSerializer(s, s),
	}
	for accept, want := range map[string]string{
		"": "application/json", "*/*": "application/json", "text/html": "application/json", "application/yaml": "application/yaml",
		pb: pb, pb + ";stream=watch": pb, pb + ",application/json": "application/json", pb + ",application/json;q=0.9": pb,
		"application/cbor": "application/cbor", "application/cbor," + pb: "application/cbor",
		pb + meta: "application/json", pb + meta + "," + pb: pb,
	} {
		a := h.do(http.MethodGet, configMaps+"/missing", "", "Accept: "+accept)
		obj, _, err := readers[want].Decode([]byte(a.body), nil, nil)
		status, ok := obj.(*metav1.Status)
		if accept == "text/html" {
			if a.code != 406 {
				t.Errorf("%q: %d", accept, a.code)
			}
			continue
		}
		if a.code != 404 || a.header.Get("Content-Type") != want || err != nil || !ok || status.Code != 404 || status.Message != `configmaps "missing" not found` || status.Details.Name != "missing" {
			t.Errorf("%q: %d %s %q, %v", accept, a.code, a.header.Get("Content-Type"), a.body, err)
		}
	}
}

// TestNegativeLimit checks that a limit below 0 is none, which kubectl sends for --chunk-size=-1.
func TestNegativeLimit(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	for _, name := range []string{"a", "b"} {
		if a := h.do(http.MethodPost, configMaps, configMap(name, "")); a.code != 201 {
			t.Fatalf("%d %s", a.code, a.body)
		}
	}
	for _, query := range []string{"?limit=-1", "?limit=-9223372036854775808&labelSelector=!x"} {
		var list metav1.PartialObjectMetadataList
		a := h.do(http.MethodGet, configMaps+query, "")
		if err := json.Unmarshal([]byte(a.body), &list); err != nil || a.code != 200 || len(list.Items) != 2 || list.Continue != "" {
			t.Errorf("%s: %d %s, %v", query, a.code, a.body, err)
		}
	}
}
