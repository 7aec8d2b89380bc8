package fieldmanager

import (
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/cbor/direct"
	"k8s.io/apimachinery/pkg/types"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/safeyaml"
)

// Configuration is the body of an apply: the fields that its manager wants, and no others.
type Configuration struct {
	Force bool // take over fields of other managers

	content map[string]any
	twice   error   // fields that the body sets twice; nil: none
	unknown []error // fields that the kind does not have
	strict  bool    // those are refused, not only warned of
	quiet   bool    // nor is that done
	fields  int
}

const (
	// maxYAML bounds a body in YAML, in bytes: its parser needs up to some 200 times as much memory.
	maxYAML = 512 << 10
	// maxExpanded bounds what the aliases of a body in YAML may make of it, in bytes: what a body in JSON may have.
	maxExpanded = 3 << 20
)

// Decode reads a body of an apply patch. What is YAML may be JSON, which costs a hundredth. validation is fieldValidation's value. The
// error is upstream's Status.
func Decode(pt types.PatchType, body []byte, validation string) (*Configuration, error) {
	c := &Configuration{strict: validation == metav1.FieldValidationStrict, quiet: validation == metav1.FieldValidationIgnore}
	lookTwice := !c.quiet
	var err error
	if pt == types.ApplyCBORPatchType {
		lookTwice, err = false, direct.Unmarshal(body, &c.content) // which refuses what is set twice
	} else if repeated, jsonErr := kjson.UnmarshalStrict(body, &c.content); jsonErr != nil || c.content == nil {
		c.content, err = fromYAML(body)
	} else if lookTwice = lookTwice && len(repeated) > 0; lookTwice && len(body) > maxYAML {
		lookTwice, c.twice = false, errors.Join(repeated...)
	}
	if err != nil {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("error decoding YAML: %v", err))
	}
	if lookTwice {
		c.twice = yaml.UnmarshalStrict(body, &map[string]any{}) // has upstream's text
	}
	var depth int
	if c.fields, depth = count(c.content, 0); depth > maxDepth {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("error decoding YAML: fields are nested more than %d deep", maxDepth))
	}
	return c, nil
}

func fromYAML(body []byte) (map[string]any, error) {
	if len(body) > maxYAML {
		return nil, fmt.Errorf("a body in YAML may have %d bytes, this one has %d; send it as JSON, as kubectl does", maxYAML, len(body))
	}
	if err := safeyaml.Check(body, maxExpanded); err != nil {
		return nil, err
	}
	var content map[string]any
	if err := yaml.Unmarshal(body, &content); err != nil {
		return nil, err
	}
	// The same once more, so that whole numbers stay whole.
	text, err := yaml.YAMLToJSON(body)
	if err != nil {
		return nil, err
	}
	content = nil
	return content, kjson.UnmarshalCaseSensitivePreserveInts(text, &content)
}

// Dropped says which fields of what was applied the kind does not have. A description of the kind refuses them before.
func (c *Configuration) Dropped(unknown []error) {
	if !c.quiet {
		c.unknown = unknown
	}
}

// Verdict returns what is to be said about fields that the body sets twice or that are unknown, once it has been applied: warnings, or a
// Status.
func (c *Configuration) Verdict() (warnings []string, err error) {
	switch {
	case c.strict && c.twice != nil:
		return nil, apierrors.NewBadRequest(fmt.Sprintf("error strict decoding YAML: %v", c.twice))
	case c.strict && len(c.unknown) > 0:
		return nil, apierrors.NewBadRequest(runtime.NewStrictDecodingError(c.unknown).Error())
	}
	if c.twice != nil {
		warnings = append(warnings, c.twice.Error())
	}
	for _, e := range c.unknown {
		warnings = append(warnings, e.Error())
	}
	return warnings, nil
}

// object returns a copy, which may be changed.
func (c *Configuration) object() *unstructured.Unstructured {
	u := &unstructured.Unstructured{Object: c.content}
	return u.DeepCopy()
}

// affordable refuses to merge it into live when that would take too long: a Status 413.
func (c *Configuration) affordable(live kube.Object) error {
	fields, managers := c.fields, len(live.GetManagedFields())
	if !small(live) {
		fields += countFields(live)
	}
	return bounded(fields, managers)
}
