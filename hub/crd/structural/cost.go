package structural

import (
	"fmt"
	"regexp/syntax"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Upstream's validation of a schema knows no deadline: it looks at each value once for each alternative that the schema has for it, and
// matches each text with patterns of any size. So what it would do is counted before, by the same walk without the work, and refused where
// that would take seconds.
const (
	// maxChecks bounds how often a value of one object is held against a schema, of some 3 µs each.
	maxChecks = 1 << 20
	// perStep is how many steps of a pattern take as long as one check, and perChoice how many values of an enum.
	perStep   = 300
	perChoice = 8
)

// checks is what a schema does with a value, beyond one check. The zero value does nothing more: nil.
type checks struct {
	also    []*checks // the alternatives, each of which is one check of the same value at least
	plain   int64     // alternatives that need no more than that
	choices int64     // of an enum
	steps   int64     // of the patterns, for each byte of a text
	fields  map[string]*checks
	rest    *checks // of the other fields
	items   *checks
}

// checksOf returns what a schema does with a value; nil: no more than one check of it and of each value in it.
func checksOf(s *apiextensions.JSONSchemaProps) *checks {
	if s == nil {
		return nil
	}
	c := &checks{choices: int64(len(s.Enum)) / perChoice, steps: stepsOf(s.Pattern), fields: map[string]*checks{}}
	for _, list := range [][]apiextensions.JSONSchemaProps{s.AllOf, s.AnyOf, s.OneOf} {
		for i := range list {
			c.alternative(&list[i])
		}
	}
	if s.Not != nil {
		c.alternative(s.Not)
	}
	for name, p := range s.Properties {
		if in := checksOf(&p); in != nil {
			c.fields[name] = in
		}
	}
	if s.AdditionalProperties != nil {
		c.rest = checksOf(s.AdditionalProperties.Schema)
	}
	if s.Items != nil {
		c.items = checksOf(s.Items.Schema)
	}
	if len(c.also) == 0 && c.plain+c.choices+c.steps == 0 && len(c.fields) == 0 && c.rest == nil && c.items == nil {
		return nil
	}
	return c
}

func (c *checks) alternative(s *apiextensions.JSONSchemaProps) {
	if in := checksOf(s); in != nil {
		c.also = append(c.also, in)
	} else if within(s) {
		c.also = append(c.also, &checks{})
	} else {
		c.plain++
	}
}

// within reports whether a schema looks into a value.
func within(s *apiextensions.JSONSchemaProps) bool {
	return len(s.Properties) > 0 || s.AdditionalProperties != nil || s.Items != nil
}

// stepsOf returns how many steps a pattern may take for each byte of a text: Go's matcher goes through all of its instructions.
func stepsOf(pattern string) int64 {
	if pattern == "" {
		return 0
	}
	re, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return 0 // nor is anything matched with it
	}
	prog, err := syntax.Compile(re.Simplify())
	if err != nil {
		return 0
	}
	return int64(len(prog.Inst))
}

// count returns how many checks v costs beyond the one that each value costs anyway, or some number beyond limit.
func (c *checks) count(v any, limit int64) (n int64) {
	if c == nil || limit < 0 {
		return 0
	}
	n = c.plain + c.choices
	switch v := v.(type) {
	case string:
		n += c.steps * int64(len(v)) / perStep
	case map[string]any:
		for name, e := range v {
			in := c.fields[name]
			if in == nil {
				in = c.rest
			}
			if n += in.count(e, limit-n); n > limit {
				return n
			}
		}
	case []any:
		for _, e := range v {
			if n += c.items.count(e, limit-n); n > limit {
				return n
			}
		}
	}
	for _, a := range c.also {
		if n += sizeOf(v, limit-n) + a.count(v, limit-n); n > limit {
			return n
		}
	}
	return n
}

// sizeOf returns how many values there are in v that an alternative looks at: each is one check more.
func sizeOf(v any, limit int64) (n int64) {
	n = 1
	switch v := v.(type) {
	case map[string]any:
		for _, e := range v {
			if n += sizeOf(e, limit-n); n > limit {
				return n
			}
		}
	case []any:
		for _, e := range v {
			if n += sizeOf(e, limit-n); n > limit {
				return n
			}
		}
	}
	return n
}

// field returns what the schema does with a field.
func (c *checks) field(name string) *checks {
	if c == nil {
		return nil
	}
	return c.fields[name]
}

// affordable refuses a value that would take too long to be held against the schema.
func (c *checks) affordable(path *field.Path, v any) field.ErrorList {
	if c.count(v, maxChecks) <= maxChecks {
		return nil
	}
	return field.ErrorList{field.Forbidden(path, fmt.Sprintf(
		"to hold it against the alternatives (allOf, anyOf, oneOf, not), patterns and enums of the schema would take more than %d checks: make the lists or texts of the object shorter, or the schema simpler", maxChecks))}
}
