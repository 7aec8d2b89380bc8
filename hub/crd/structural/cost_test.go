package structural

import (
	"fmt"
	"strings"
	"testing"
)

// TestCostOfSchemas checks that an object which its schema would be held against for seconds is refused before, whatever makes it
// expensive, and that what is usual is not. Before, 5,000 items with a thousand alternatives took 16 s, and a text of 3 MB with a pattern of
// 200 bytes minutes.
func TestCostOfSchemas(t *testing.T) {
	list := func(n int, v any) []any {
		out := make([]any, n)
		for i := range out {
			out[i] = v
		}
		return out
	}
	alternatives := func(kind string, n int, one string) string {
		all := make([]string, n)
		for i := range all {
			all[i] = strings.ReplaceAll(one, "N", fmt.Sprint(i))
		}
		return `"` + kind + `":[` + strings.Join(all, ",") + `]`
	}
	const thing = `{"required":["aN"],"properties":{"aN":{"minLength":1}}}`
	items := func(schema string) string {
		return `"a":{"type":"array","items":{"type":"object","x-kubernetes-preserve-unknown-fields":true,` + schema + `}}`
	}
	names := make([]string, 4000)
	for i := range names {
		names[i] = fmt.Sprintf("%q", fmt.Sprint("n", i))
	}
	enum := `"a":{"type":"array","items":{"type":"string","enum":[` + strings.Join(names, ",") + `]}}`
	for name, c := range map[string]struct {
		fields  string
		a       any
		refused bool
	}{
		"anyOf":               {items(alternatives("anyOf", 1000, thing)), list(5000, map[string]any{"x": "y"}), true},
		"oneOf":               {items(alternatives("oneOf", 1000, thing)), list(5000, map[string]any{"x": "y"}), true},
		"allOf":               {items(alternatives("allOf", 1000, thing)), list(5000, map[string]any{"x": "y"}), true},
		"not within anyOf":    {items(alternatives("anyOf", 1000, `{"not":`+thing+`}`)), list(5000, map[string]any{"x": "y"}), true},
		"of scalars":          {`"a":{"type":"array","items":{"type":"string",` + alternatives("anyOf", 1000, `{"pattern":"^N$"}`) + `}}`, list(5000, "x"), true},
		"of formats":          {`"a":{"type":"array","items":{"type":"string",` + alternatives("anyOf", 1000, `{"format":"date"}`) + `}}`, list(5000, "x"), true},
		"of a whole list":     {`"a":{"type":"array","items":{"type":"string"},` + alternatives("anyOf", 1000, `{"items":{"maxLength":3}}`) + `}`, list(5000, "four"), true},
		"a pattern":           {`"a":{"type":"string","pattern":"(x?){900}((y?){900}|(z?){900})$"}`, strings.Repeat("x", 3<<20), true},
		"a pattern for many":  {`"a":{"type":"array","items":{"type":"string","pattern":"(x?y?z?){900}$"}}`, list(100_000, strings.Repeat("x", 20)), true},
		"enum":                {enum, list(50_000, "n3999"), true},
		"some anyOf":          {items(alternatives("anyOf", 10, thing)), list(5000, map[string]any{"a3": "y"}), false},
		"a usual pattern":     {`"a":{"type":"array","items":{"type":"string","pattern":"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"}}`, list(10_000, "a-name.of.usual.length"), false},
		"a usual enum":        {`"a":{"type":"array","items":{"type":"string","enum":["a","b","c","d"]}}`, list(20_000, "d"), false},
		"a text of a file":    {`"a":{"type":"string","pattern":"^[^\\x00]*$"}`, strings.Repeat("x", 1<<20), false},
		"a port":              {`"a":{"type":"array","items":{"x-kubernetes-int-or-string":true,"anyOf":[{"type":"integer"},{"type":"string"}]}}`, list(20_000, int64(80)), false},
		"many without any":    {`"a":{"type":"array","items":{"type":"object","additionalProperties":{"type":"string"}}}`, list(10_000, map[string]any{"a": "b", "c": "d"}), false},
		"refused by a choice": {`"a":{"type":"string","enum":["b"]}`, "c", false},
	} {
		t.Run(name, func(t *testing.T) {
			crd, err := withSchema(`{"type":"object","properties":{` + c.fields + `,"status":{"type":"object","properties":{` + c.fields + `}}}}`)
			if err != nil {
				t.Fatal(err)
			}
			s, err := Compile(crd, "v1")
			if err != nil {
				t.Fatal(err)
			}
			obj := map[string]any{"apiVersion": "example.dev/v1", "kind": "Thing", "a": c.a}
			inStatus := map[string]any{"apiVersion": "example.dev/v1", "kind": "Thing", "status": map[string]any{"a": c.a}}
			for what, errs := range map[string]error{
				"a new object": s.Validate(t.Context(), obj, nil).ToAggregate(), "an update": s.Validate(t.Context(), obj, map[string]any{"kind": "Thing"}).ToAggregate(),
				"a status": s.ValidateStatus(t.Context(), inStatus, map[string]any{"kind": "Thing"}).ToAggregate(),
			} {
				if refused := errs != nil && strings.Contains(errs.Error(), "would take more than 1048576 checks"); refused != c.refused {
					t.Errorf("%s: %.300v", what, errs)
				}
			}
		})
	}
}
