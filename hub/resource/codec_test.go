package resource

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"pgregory.net/rapid"

	"petrel.dev/petrel/internal/kube"
)

// Whatever people put into names, labels and annotations, the hole for the revision is metadata's own field.
func TestEncodeFindsRevision(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{`"resourceVersion":"?"`, `\"resourceVersion":"`, "?"}))
		obj := &corev1.ConfigMap{Data: map[string]string{}}
		obj.Name, obj.GenerateName, obj.SelfLink = text.Draw(t, "name"), text.Draw(t, "generateName"), text.Draw(t, "selfLink")
		obj.ResourceVersion = "12"
		obj.Annotations = map[string]string{"resourceVersion": "?", text.Draw(t, "key"): text.Draw(t, "value")}
		obj.Data["resourceVersion"] = "?"
		data, at, err := Encode(obj)
		if err != nil {
			t.Fatal(err)
		}
		if obj.ResourceVersion != "12" || obj.Kind != "" {
			t.Fatal("Encode changed its argument")
		}
		stored := slices.Insert(data, at, []byte("99")...)
		var got corev1.ConfigMap
		if err := json.Unmarshal(stored, &got); err != nil {
			t.Fatalf("%s: %v", stored, err)
		}
		if got.ResourceVersion != "99" || got.Annotations["resourceVersion"] != "?" || got.Kind != "ConfigMap" || got.APIVersion != "v1" {
			t.Fatalf("%s", stored)
		}
	})
}

func TestDecodeStrict(t *testing.T) {
	for _, c := range []struct{ body, want, err string }{
		{`{"metadata":{"name":"a"},"spec":{"containers":[{"name":"c","imagee":"i"}]}}`, `[unknown field "spec.containers[0].imagee"]`, ""},
		{`{"metadata":{"name":"a","name":"b"}}`, `[duplicate field "metadata.name"]`, ""},
		{`{"metadata":{"name":"a"},"spec":{"containers":[]}}`, `[]`, ""},
		{`{"spec":{"containers":"none"}}`, ``, `decode Pod: json: cannot unmarshal string into Go struct field PodSpec.spec.containers of type []v1.Container`},
		{`{"metadata":`, ``, `decode Pod: unexpected end of JSON input`},
	} {
		obj, strict, err := DecodeStrict(kube.Pod, []byte(c.body))
		if c.err != "" {
			if err == nil || err.Error() != c.err {
				t.Errorf("%s: error %v, want %s", c.body, err, c.err)
			}
			continue
		}
		if err != nil || fmt.Sprint(strict) != c.want {
			t.Errorf("%s: %v, %v; want %s", c.body, strict, err, c.want)
		}
		if obj.GetObjectKind().GroupVersionKind() != kube.Pod {
			t.Errorf("%s: decoded as %s", c.body, obj.GetObjectKind().GroupVersionKind())
		}
	}
}

func TestDecodeBody(t *testing.T) {
	pod := made(t, byResource(t, "pods", ""))
	var proto bytes.Buffer
	for _, info := range Negotiator().SupportedMediaTypes() {
		if info.MediaType == runtime.ContentTypeProtobuf {
			if err := Negotiator().EncoderForVersion(info.Serializer, corev1.SchemeGroupVersion).Encode(pod, &proto); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, c := range []struct{ contentType, body, strict string }{
		{"", `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"}}`, "[]"},
		{"application/json; charset=utf-8", `{"metadata":{"name":"a"},"x":1}`, `[unknown field "x"]`},
		{"application/yaml", "kind: Pod\napiVersion: v1\nmetadata:\n  name: a\n  name: a\n", `[line 5: key "name" already set in map]`},
		{"application/vnd.kubernetes.protobuf", proto.String(), "[]"},
	} {
		obj, strict, err := DecodeBody(c.contentType, []byte(c.body), kube.Pod)
		if err != nil {
			t.Errorf("%s: %v", c.contentType, err)
			continue
		}
		if p, ok := obj.(*corev1.Pod); !ok || p.Name != "a" || p.Kind != "Pod" || p.APIVersion != "v1" {
			t.Errorf("%s: %#v", c.contentType, obj)
		}
		for i, e := range strict {
			strict[i] = errors.New(strings.TrimSpace(strings.TrimPrefix(e.Error(), "yaml: unmarshal errors:\n")))
		}
		if fmt.Sprint(strict) != c.strict {
			t.Errorf("%s: strict errors %v, want %s", c.contentType, strict, c.strict)
		}
	}
	var unsupported *UnsupportedMediaTypeError
	if _, _, err := DecodeBody("text/plain", []byte("x"), kube.Pod); !errors.As(err, &unsupported) {
		t.Errorf("text/plain: %v", err)
	}
	if _, _, err := DecodeBody("", []byte(`{"apiVersion":"v1","kind":"Nothing"}`), kube.Pod); !runtime.IsNotRegisteredError(err) {
		t.Errorf("unknown kind: %v", err)
	}
}

func TestDecodeUnknownKind(t *testing.T) {
	if _, err := Decode(kube.GVK{Version: "v1", Kind: "Nothing"}, []byte("{}")); !runtime.IsNotRegisteredError(err) {
		t.Errorf("%v", err)
	}
	if _, err := Decode(corev1.SchemeGroupVersion.WithKind("PodLogOptions"), []byte("{}")); err == nil {
		t.Error("an object without metadata is accepted")
	}
}

func TestMarshal(t *testing.T) {
	obj := &corev1.ConfigMap{}
	obj.Name, obj.ResourceVersion = "a", "12"
	data, err := Marshal(obj)
	if err != nil || string(data) != `{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a","resourceVersion":"12"}}` {
		t.Errorf("%s, %v", data, err)
	}
}

// Decoders take bytes from the network: whatever they are, there is an error or an object, never a panic.
func FuzzDecodeBody(f *testing.F) {
	pods := byResource(f, "pods", "")
	f.Add("application/json", []byte(`{"metadata":{"name":"a"},"spec":{"containers":[{"name":"c"}]}}`))
	f.Add("application/yaml", []byte("metadata: {name: a}"))
	f.Add("application/vnd.kubernetes.protobuf", []byte("k8s\x00\n\x00"))
	f.Fuzz(func(t *testing.T, contentType string, body []byte) {
		obj, _, err := DecodeBody(contentType, body, kube.Pod)
		if (obj == nil) != (err != nil) {
			t.Errorf("%v, %v", obj, err)
		}
		pod, ok := obj.(*corev1.Pod)
		if !ok {
			return
		}
		create(pods, pod) // refused or not, the rules stand it
	})
}
