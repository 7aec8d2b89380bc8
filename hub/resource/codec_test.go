package resource_test

import (
	"encoding/json"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"pgregory.net/rapid"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

// Whatever people put into names, labels and annotations, the hole for the revision is metadata's own field.
func TestEncodeFindsRevision(t *testing.T) {
	codec := resource.Declare(kube.ConfigMap, "configmaps", "configmap").Codec
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{`"resourceVersion":"?"`, `\"resourceVersion":"`, "?"}))
		obj := &corev1.ConfigMap{Data: map[string]string{}}
		//lint:ignore SA1019 any field may hold the text
		obj.Name, obj.GenerateName, obj.SelfLink = text.Draw(t, "name"), text.Draw(t, "generateName"), text.Draw(t, "selfLink")
		obj.ResourceVersion = "12"
		obj.Annotations = map[string]string{"resourceVersion": "?", text.Draw(t, "key"): text.Draw(t, "value")}
		obj.Data["resourceVersion"] = "?"
		data, at, err := codec.Encode(obj)
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

func TestDecodeUnknownKind(t *testing.T) {
	if _, err := resource.Declare(kube.GVK{Version: "v1", Kind: "Nothing"}, "nothings", "nothing").Codec.Decode([]byte("{}")); !runtime.IsNotRegisteredError(err) {
		t.Errorf("%v", err)
	}
	if _, err := resource.Declare(corev1.SchemeGroupVersion.WithKind("PodLogOptions"), "podlogoptions", "podlogoptions").Codec.Decode([]byte("{}")); err == nil {
		t.Error("an object without metadata is accepted")
	}
}
