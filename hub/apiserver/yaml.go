package apiserver

import (
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"petrel.dev/petrel/hub/apiserver/media"
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
	if form != media.YAML {
		return s.Decode(body, gvk, into)
	}
	if len(body) > maxYAML {
		return nil, nil, apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("a body in YAML may have %d bytes, this one has %d; send it as JSON, as kubectl does", maxYAML, len(body)))
	}
	release, err := x.s.budgets.yaml.Acquire(x.ctx, x.user.Name)
	if err != nil {
		return nil, nil, tooMany("too many bodies in YAML at once; try again later, or send JSON, as kubectl does")
	}
	defer release()
	return s.Decode(body, gvk, into)
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
