package apiserver

import (
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"petrel.dev/petrel/hub/apiserver/media"
	"petrel.dev/petrel/hub/weight"
	"petrel.dev/petrel/internal/safeyaml"
)

const (
	// maxYAML bounds a body in YAML, in bytes. Its parser needs up to some 200 times as much memory; JSON needs a
	// few times as much and may have maxBody.
	maxYAML = 512 << 10
	// maxYAMLOut bounds an answer in YAML, which is parsed on its way out, in bytes.
	maxYAMLOut = 4 << 20
)

// parse decodes a body of the media type form. YAML is bounded by maxYAML and parsed one body at a time: users take turns.
func (x *exchange) parse(s runtime.Serializer, form string, body []byte, gvk *schema.GroupVersionKind, into runtime.Object) (runtime.Object, *schema.GroupVersionKind, error) {
	shape := weight.ShapeOf(into)
	if form != media.YAML {
		if err := x.weigh(form, body, shape); err != nil {
			return nil, nil, err
		}
		return s.Decode(body, gvk, into)
	}
	release, err := x.yamlTurn(len(body))
	if err != nil {
		return nil, nil, err
	}
	defer release()
	if err := safeyaml.Check(body, maxBody); err != nil {
		return nil, nil, err
	}
	if text, err := yaml.YAMLToJSON(body); err == nil {
		if err := x.weigh(media.JSON, text, shape); err != nil {
			return nil, nil, err
		}
	}
	return s.Decode(body, gvk, into)
}

// yamlTurn waits until a body in YAML may be parsed. release must be called.
func (x *exchange) yamlTurn(size int) (release func(), err error) {
	if size > maxYAML {
		return nil, apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("a body in YAML may have %d bytes, this one has %d; send it as JSON, as kubectl does", maxYAML, size))
	}
	release, err = x.s.budgets.yaml.Acquire(x.ctx, x.user.Name)
	if err != nil {
		return nil, tooMany("too many bodies in YAML at once; try again later, or send JSON, as kubectl does")
	}
	return release, nil
}

// toYAML returns an answer in YAML; ok is false when it stays JSON, because it is large or others are being converted.
func (x *exchange) toYAML(body []byte) (out []byte, ok bool) {
	if len(body) > maxYAMLOut {
		return nil, false
	}
	release, err := x.s.budgets.yaml.Acquire(x.ctx, x.user.Name)
	if err != nil {
		return nil, false
	}
	defer release()
	out, err = yaml.JSONToYAML(body)
	return out, err == nil
}
