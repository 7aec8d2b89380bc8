package media

import (
	"bytes"
	"encoding/json"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1beta1 "k8s.io/apimachinery/pkg/apis/meta/v1beta1"
	"k8s.io/apimachinery/pkg/runtime"
)

// TestMetadataLists decodes lists of metadata in both versions, whose messages differ in the order of their fields, by upstream's types.
func TestMetadataLists(t *testing.T) {
	c := NewCodec(runtime.NewScheme())
	for _, version := range []string{"meta.k8s.io/v1", "meta.k8s.io/v1beta1"} {
		item := json.RawMessage(`{"kind":"PartialObjectMetadata","apiVersion":"` + version + `","metadata":{"name":"a"}}`)
		f := Form{Media: Protobuf, As: "PartialObjectMetadataList", Shape: version}
		l := &List{Kind: f.As, APIVersion: version, Meta: metav1.ListMeta{ResourceVersion: "7"}, Items: ItemsOf(pairs([]json.RawMessage{item})), Count: 1}
		var b bytes.Buffer
		if err := c.WriteBinary(&b, f, l); err != nil {
			t.Fatal(err)
		}
		var whole runtime.Unknown
		if err := whole.Unmarshal(b.Bytes()[len(envelope):]); err != nil || whole.APIVersion != version {
			t.Fatalf("%v: %+v", err, whole.TypeMeta)
		}
		var revision string
		var err error
		var items []metav1.PartialObjectMetadata
		if version == "meta.k8s.io/v1" {
			var l metav1.PartialObjectMetadataList
			err = l.Unmarshal(whole.Raw)
			revision, items = l.ResourceVersion, l.Items
		} else {
			var l metav1beta1.PartialObjectMetadataList
			err = l.Unmarshal(whole.Raw)
			revision, items = l.ResourceVersion, l.Items
		}
		if err != nil || revision != "7" || len(items) != 1 || items[0].Name != "a" {
			t.Errorf("%s: %v: %q %+v", version, err, revision, items)
		}
	}
}
