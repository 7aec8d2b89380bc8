package conversion

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/uuid"

	"petrel.dev/petrel/hub/webhook"
	"petrel.dev/petrel/hub/weight"
)

// Caller calls webhooks; *webhook.Client is one.
type Caller interface {
	// Call posts body to the webhook and returns its answer, limit bytes at most.
	Call(ctx context.Context, t webhook.Target, body []byte, limit int64) ([]byte, error)
}

const (
	// callTime bounds one call: as upstream's, less than what a request may take.
	callTime = 30 * time.Second
	// maxBatch is how many bytes of objects one call converts; more take several. A list comes in portions that are smaller.
	maxBatch = 4 << 20
	// maxGrowth is how much larger than the objects of a call its answer may be, and maxOverhead what an answer may have besides.
	maxGrowth   = 4
	maxOverhead = 1 << 20
)

// Converter converts the objects of one definition. It does not change, and is safe for concurrent use.
type Converter struct {
	webhooks Caller
	// target is the webhook; the zero Target: versions differ in nothing but their name.
	target   webhook.Target
	versions []string // of ConversionReview, as the definition prefers them
}

// New returns the converter that spec asks for. The definition has been validated and defaulted.
func New(spec *apiextensionsv1.CustomResourceConversion, webhooks Caller) *Converter {
	c := &Converter{webhooks: webhooks}
	if spec == nil || spec.Strategy != apiextensionsv1.WebhookConverter || spec.Webhook == nil || spec.Webhook.ClientConfig == nil {
		return c
	}
	config := spec.Webhook.ClientConfig
	c.versions = spec.Webhook.ConversionReviewVersions
	c.target.CABundle = string(bytes.TrimSpace(config.CABundle))
	if config.URL != nil {
		c.target.URL = *config.URL
	}
	if s := config.Service; s != nil {
		c.target.Namespace, c.target.Name = s.Namespace, s.Name
		if s.Port != nil {
			c.target.Port = *s.Port
		}
		if s.Path != nil {
			c.target.Path = *s.Path
		}
	}
	return c
}

// Convert returns objs, each of which is in another version, in version to and in their order. It owns objs.
func (c *Converter) Convert(ctx context.Context, objs []*unstructured.Unstructured, to schema.GroupVersion) ([]*unstructured.Unstructured, error) {
	if c.target == (webhook.Target{}) {
		for _, obj := range objs {
			obj.SetAPIVersion(to.String())
		}
		return objs, nil
	}
	out := make([]*unstructured.Unstructured, 0, len(objs))
	for len(objs) > 0 {
		n, bytes := 0, 0
		for n < len(objs) && (n == 0 || bytes < maxBatch) {
			bytes += size(objs[n])
			n++
		}
		some, err := c.call(ctx, objs[:n], bytes, to)
		if err != nil {
			return nil, err
		}
		out, objs = append(out, some...), objs[n:]
	}
	return out, nil
}

// call converts objs, which have so many bytes, in one call.
func (c *Converter) call(ctx context.Context, objs []*unstructured.Unstructured, bytes int, to schema.GroupVersion) ([]*unstructured.Unstructured, error) {
	kind := objs[0].GroupVersionKind()
	failed := func(err error) ([]*unstructured.Unstructured, error) {
		return nil, fmt.Errorf("conversion webhook for %v failed: %w", kind, err)
	}
	version, err := reviewVersion(c.versions)
	if err != nil {
		return nil, err
	}
	uid := uuid.NewUUID()
	body, err := request(version, uid, objs, to)
	if err != nil {
		return failed(err)
	}
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	answer, err := c.webhooks.Call(ctx, c.target, body, int64(maxGrowth*bytes+maxOverhead))
	if err != nil {
		return failed(err)
	}
	answered, n, err := response(version, uid, answer, len(objs))
	if err != nil {
		return failed(err)
	}
	if n != len(objs) {
		return nil, fmt.Errorf("conversion webhook for %v returned %d objects, expected %d", kind, n, len(objs))
	}
	if err := affordable(body, answered); err != nil {
		return failed(err)
	}
	out := make([]*unstructured.Unstructured, len(objs))
	for i, raw := range answered {
		if out[i], err = converted(raw, objs[i], to); err != nil {
			return nil, fmt.Errorf("conversion webhook for %v returned invalid converted object at index %v: %w", kind, i, err)
		}
		if err := restoreMetadata(objs[i], out[i]); err != nil {
			return nil, fmt.Errorf("conversion webhook for %v returned invalid metadata in object at index %v: %w", kind, i, err)
		}
	}
	return out, nil
}

// affordable refuses objects that would take far more memory, once they are decoded, than those of the request: a webhook may make of many
// small objects, each of which any object may be, more than there is memory.
func affordable(request []byte, answered []json.RawMessage) error {
	asked, err := weight.JSON(request, weight.Untyped(), math.MaxInt64)
	if err != nil {
		return err
	}
	limit := maxGrowth*asked + weight.Max
	for left := limit; len(answered) > 0; answered = answered[1:] {
		n, err := weight.JSON(answered[0], weight.Untyped(), left)
		if err != nil {
			return err
		}
		if left -= n; left < 0 {
			return fmt.Errorf("the converted objects would take more than %d bytes of memory", limit)
		}
	}
	return nil
}
