package apiserver

import (
	"encoding/hex"
	"fmt"
	"mime"
	"reflect"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"

	"petrel.dev/petrel/hub/resource"
)

// codec reads request bodies and writes objects in forms other than the stored one.
type codec struct {
	scheme                                       *runtime.Scheme
	json, jsonStrict, yaml, yamlStrict, protobuf runtime.Serializer
	meta                                         runtime.Serializer // for PartialObjectMetadata, which no group owns
}

func newCodec(s *runtime.Scheme) *codec {
	mk := func(o json.SerializerOptions) runtime.Serializer {
		return json.NewSerializerWithOptions(json.DefaultMetaFactory, s, s, o)
	}
	metaScheme := runtime.NewScheme()
	utilruntime.Must(metav1.AddMetaToScheme(metaScheme))
	return &codec{
		meta:       json.NewSerializerWithOptions(json.DefaultMetaFactory, metaScheme, metaScheme, json.SerializerOptions{}),
		scheme:     s,
		json:       mk(json.SerializerOptions{}),
		jsonStrict: mk(json.SerializerOptions{Strict: true}),
		yaml:       mk(json.SerializerOptions{Yaml: true}),
		yamlStrict: mk(json.SerializerOptions{Yaml: true, Strict: true}),
		protobuf:   protobuf.NewSerializer(s, s),
	}
}

// decode reads an answer that is at hand as JSON: an object, or the metadata of one or many.
func (c *codec) decode(body []byte) (runtime.Object, error) {
	obj, _, err := c.json.Decode(body, nil, nil)
	if runtime.IsNotRegisteredError(err) {
		obj, _, err = c.meta.Decode(body, nil, nil)
	}
	return obj, err
}

// input picks the serializer for a body's media type.
func (c *codec) input(contentType string, strict bool) (runtime.Serializer, error) {
	media := mediaJSON
	if contentType != "" {
		m, _, err := mime.ParseMediaType(contentType)
		if err != nil {
			return nil, unsupportedMediaType(mediaTypes)
		}
		media = m
	}
	switch {
	case media == mediaJSON && strict:
		return c.jsonStrict, nil
	case media == mediaJSON:
		return c.json, nil
	case media == mediaYAML && strict:
		return c.yamlStrict, nil
	case media == mediaYAML:
		return c.yaml, nil
	case media == mediaProtobuf:
		return c.protobuf, nil
	}
	return nil, unsupportedMediaType(mediaTypes)
}

// decodeBody reads an object of the wanted kind. Unknown and duplicate fields are an error, a warning or nothing, as
// validation says ("" means Warn).
func (x *exchange) decodeBody(body []byte, gvk schema.GroupVersionKind, into runtime.Object, validation string) (runtime.Object, error) {
	strict := validation != metav1.FieldValidationIgnore
	s, err := x.s.codec.input(x.r.Header.Get("Content-Type"), strict)
	if err != nil {
		return nil, err
	}
	obj, actual, err := x.parse(s, body, &gvk, into)
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

// internalName is what upstream calls its internal type in conversion errors: core.Pod, apps.Deployment.
func internalName(gvk schema.GroupVersionKind) string {
	group, _, _ := strings.Cut(gvk.Group, ".")
	if group == "" {
		group = "core"
	}
	return group + "." + gvk.Kind
}

// decodeError words a body that cannot be read as upstream does: users, and tests of clients, know these texts.
func decodeError(err error, want schema.GroupVersionKind, actual *schema.GroupVersionKind, body []byte) error {
	if actual != nil && actual.Kind != "" {
		return apierrors.NewBadRequest(fmt.Sprintf("%s in version %q cannot be handled as a %s: %v", actual.Kind, actual.Version, want.Kind, err))
	}
	return apierrors.NewBadRequest(fmt.Sprintf("the object provided is unrecognized (must be of type %s): %v (%s)", want.Kind, err, summary(body)))
}

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

// strictWarnings cuts the YAML decoder's collected complaint into one warning each.
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

// bodyType is what a write to the target carries.
func bodyType(k *resource.Kind, sub *resource.Subresource) (schema.GroupVersionKind, runtime.Object) {
	if sub != nil && sub.New != nil {
		return sub.GVK, sub.New()
	}
	return k.GVK, k.New()
}
