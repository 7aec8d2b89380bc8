package media

import (
	"bytes"
	"encoding/json"
	"fmt"
	"mime"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	metav1beta1 "k8s.io/apimachinery/pkg/apis/meta/v1beta1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/cbor"
	kjson "k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
)

// Codec reads request bodies, and makes the binary forms of objects. It is immutable.
type Codec struct {
	text, strict map[string]runtime.Serializer // by media type; strict ones report unknown and repeated fields
	protobuf     runtime.Serializer
	cbor         runtime.Serializer
	meta         runtime.Serializer // for PartialObjectMetadata, which no group owns
}

// NewCodec returns the codec of a scheme.
func NewCodec(s *runtime.Scheme) *Codec {
	mk := func(o kjson.SerializerOptions) runtime.Serializer {
		return kjson.NewSerializerWithOptions(kjson.DefaultMetaFactory, s, s, o)
	}
	metaScheme := runtime.NewScheme()
	utilruntime.Must(metav1.AddMetaToScheme(metaScheme))
	utilruntime.Must(metav1beta1.AddMetaToScheme(metaScheme))
	pb := protobuf.NewSerializer(s, s)
	return &Codec{
		text: map[string]runtime.Serializer{
			JSON: mk(kjson.SerializerOptions{}), YAML: mk(kjson.SerializerOptions{Yaml: true}),
			Protobuf: pb, CBOR: cbor.NewSerializer(s, s),
		},
		strict: map[string]runtime.Serializer{
			JSON: mk(kjson.SerializerOptions{Strict: true}), YAML: mk(kjson.SerializerOptions{Yaml: true, Strict: true}),
			Protobuf: pb, CBOR: cbor.NewSerializer(s, s, cbor.Strict(true)),
		},
		protobuf: pb,
		cbor:     cbor.NewSerializer(s, s),
		meta:     kjson.NewSerializerWithOptions(kjson.DefaultMetaFactory, metaScheme, metaScheme, kjson.SerializerOptions{}),
	}
}

// Input returns the serializer for a body's Content-Type, "" being JSON, and which media type that is. A type that is not
// accepted is an Unsupported error.
func (c *Codec) Input(contentType string, accepted []string, strict bool) (s runtime.Serializer, media string, err error) {
	media = JSON
	if contentType != "" {
		if media, _, err = mime.ParseMediaType(contentType); err != nil {
			return nil, "", Unsupported(accepted)
		}
	}
	all := c.text
	if strict {
		all = c.strict
	}
	if s = all[media]; s == nil || !slices.Contains(accepted, media) {
		return nil, "", Unsupported(accepted)
	}
	return s, media, nil
}

// decode decodes JSON that is to be answered: an object, or the metadata of one or many.
func (c *Codec) decode(body []byte) (runtime.Object, error) {
	obj, _, err := c.text[JSON].Decode(body, nil, nil)
	if runtime.IsNotRegisteredError(err) {
		obj, _, err = c.meta.Decode(body, nil, nil)
	}
	return obj, err
}

// Binary returns an object in a binary form. body is its JSON; obj is the object itself, or nil when it has to be decoded.
func (c *Codec) Binary(f Form, obj runtime.Object, body []byte) ([]byte, error) {
	if obj == nil {
		var err error
		obj, err = c.decode(body)
		if f.Media == CBOR && runtime.IsNotRegisteredError(err) { // a kind without a Go type
			u := &unstructured.Unstructured{}
			obj, err = u, json.Unmarshal(body, &u.Object)
		}
		if err != nil {
			return nil, fmt.Errorf("decode for %s: %w", f.Media, err)
		}
	}
	s := c.protobuf
	if f.Media == CBOR {
		s = c.cbor
	}
	var b bytes.Buffer
	if err := s.Encode(obj, &b); err != nil {
		return nil, fmt.Errorf("encode as %s: %w", f.Media, err)
	}
	return b.Bytes(), nil
}
