package celbound

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/cel/environment"
	celcost "k8s.io/apiserver/pkg/cel/library"

	"petrel.dev/petrel/internal/memtest"
)

// variables declares those of the tests' expressions.
func variables() environment.VersionedOptions {
	return environment.VersionedOptions{IntroducedVersion: environment.DefaultCompatibilityVersion(), EnvOptions: []cel.EnvOption{
		cel.Variable("text", cel.StringType), cel.Variable("items", cel.ListType(cel.DynType)),
	}}
}

// evaluate evaluates an expression as admission and custom kinds do, and returns what it made of it and its cost.
func evaluate(t testing.TB, set *environment.EnvSet, expression string, input map[string]any) (ref.Val, uint64, error) {
	t.Helper()
	set, err := set.Extend(variables())
	if err != nil {
		t.Fatal(err)
	}
	env := set.StoredExpressionsEnv()
	ast, issues := env.Compile(expression)
	if issues.Err() != nil {
		t.Fatal(issues.Err())
	}
	program, err := env.Program(ast, cel.CostLimit(celconfig.PerCallLimit), cel.CostTracking(&celcost.CostEstimator{}), cel.InterruptCheckFrequency(celconfig.CheckFrequency))
	if err != nil {
		t.Fatal(err)
	}
	v, details, err := program.ContextEval(t.Context(), input)
	return v, *details.ActualCost(), err
}

// doubled returns a list of lists that share their elements: small, and 2^times items for what walks through it.
func doubled(times int) string {
	return "[[text]]" + strings.Repeat(".map(x, [x, x])", times)
}

// TestBounds checks that no call makes more than its bound, whatever it is called with, that the refusal names function and bound, and
// that "||" does not pass over it.
func TestBounds(t *testing.T) {
	for name, test := range map[string]struct{ expression, text string }{
		"replace":                 {`text.replace("a", text).replace("a", text).replace("a", text) == ""`, "replace: the result would have more than 3145728 bytes"},
		"replace of nothing":      {`text.replace("", text).replace("", text).replace("", text) == ""`, "replace: the result would have more than 3145728 bytes"},
		"replace so many times":   {`text.replace("a", text).replace("a", text, 1000000) == ""`, "replace: the result would have more than 3145728 bytes"},
		"of a value of any type":  {`dyn(text).replace("a", text).replace("a", text) == ""`, "replace: the result would have more than 3145728 bytes"},
		"join":                    {`lists.range(5000).map(x, text).join() == ""`, "join: the result would have more than 3145728 bytes"},
		"join by a text":          {`lists.range(5000).map(x, "").join(text) == ""`, "join: the result would have more than 3145728 bytes"},
		"format":                  {`"%s".format([lists.range(5000).map(x, text)]) == ""`, "format: the result would have more than 3145728 bytes"},
		"format in digits":        {`"%.1000000000f".format([1.0]) == ""`, "format: the result would have more than 3145728 bytes"},
		"format in more digits":   {`"%.999999999999999999e".format([1.0]) == ""`, "format: the result would have more than 3145728 bytes"},
		"format of shared lists":  {`"%s".format(` + doubled(40) + `) == ""`, "format: the result would have more than 3145728 bytes"},
		"flatten":                 {doubled(40) + `.flatten(50) == []`, "flatten: the result would have more than 1000000 items"},
		"range":                   {`lists.range(1000000000) == []`, "lists.range: the result would have more than 1000000 items"},
		"passed over":             {`lists.range(1000000000) == [] || true`, "lists.range: the result would have more than 1000000 items"},
		"many that are smaller":   {`lists.range(10000).map(x, text.replace("a", text)).size() == 0`, "actual cost limit exceeded"},
		"many that are formatted": {`lists.range(10000).map(x, "%s%s".format([items, items])).size() == 0`, "actual cost limit exceeded"},
		"many that are flat":      {`lists.range(10000).map(x, ` + doubled(9) + `.flatten(10)).size() == 0`, "actual cost limit exceeded"},
		"sums":                    {`lists.range(40).exists(x, text.replace("a", text) + text.replace("a", text) == "")`, "actual cost limit exceeded"},
	} {
		t.Run(name, func(t *testing.T) {
			long := strings.Repeat("a", 1000)
			if strings.Contains(test.expression, "[[text]]") {
				long = "a"
			}
			input := map[string]any{"text": long, "items": []string{strings.Repeat("a", 500_000)}}
			var v ref.Val
			var err error
			n := memtest.Allocated(func() { v, _, err = evaluate(t, Install(), test.expression, input) })
			if err == nil || !strings.HasPrefix(err.Error(), "operation cancelled: ") || !strings.Contains(err.Error(), test.text) {
				t.Errorf("%v, %v", v, err)
			}
			if n > 512 {
				t.Errorf("%d MiB were allocated", n)
			}
		})
	}
}

// unbounded returns an environment of Kubernetes' own without the bounds.
func unbounded(t *testing.T) *environment.EnvSet {
	Install()
	environment.DisableBaseEnvSetCachingForTests()
	return environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion())
}

// TestSameAsKubernetes checks that what is not large evaluates as without the bounds, errors included, and that it costs the same where
// the result is not larger than its text.
func TestSameAsKubernetes(t *testing.T) {
	bare := unbounded(t)
	for expression, more := range map[string]uint64{
		`text.replace("a", "b")`:      0,
		`text.replace("", "-")`:       1,
		`text.replace("ä", "")`:       0,
		`text.replace("a", "bb", 1)`:  1,
		`text.replace("a", "bb", -1)`: 1,
		`text.replace("a", "bb", 0)`:  0,
		`dyn(1).replace("a", "b")`:    0,
		`["a", "b"].join()`:           0,
		`["a", "b"].join(", ")`:       0,
		`dyn([1]).join(", ")`:         0,
		`"%s and %d and %.3f, %e, %x, %X, %b %o %%".format([text, 1, 2.5, 2.5, "ab", 10, 5, 8])`: 3,
		`"%s %s".format([[1, 2.0, "a\"b", b"x", null, true], {"a": [1], "b": "c"}])`:             7,
		`"%s".format([duration("1h")])`:                  1,
		`"%s".format([])`:                                0,
		`"%z".format(items)`:                             0,
		`"%d".format(["a"])`:                             0,
		`"%s".format([type(1)])`:                         1,
		`[[[1]], [[2], [3]]].flatten()`:                  1,
		`[[[1]], [[2], [3]]].flatten(2)`:                 1,
		`[[[1]], [[2], [3]]].flatten(-1)`:                2,
		`[1, 2].flatten(3)`:                              0,
		`lists.range(5)`:                                 0,
		`lists.range(-5)`:                                0,
		`text == "" || "%d".format(["a"]) == "" || true`: 0,
	} {
		if strings.Contains(expression, "%z") || strings.Contains(expression, "%.f") || strings.Contains(expression, `"%s".format([])`) || strings.Contains(expression, `"%d".format(["a"])`) {
			expression = strings.Replace(expression, `".format`, `".replace("~", "").format`, 1) // otherwise the compiler refuses the clause
		}
		input := map[string]any{"text": "äaaaaaaaa", "items": []int{1}}
		v1, cost1, err1 := evaluate(t, bare, expression, input)
		v2, cost2, err2 := evaluate(t, Install(), expression, input)
		if fmt.Sprint(err1) != fmt.Sprint(err2) || err1 == nil && v1.Equal(v2) != types.True {
			t.Errorf("%s: %v, %v without bounds; %v, %v with them", expression, v1, err1, v2, err2)
		}
		if cost2 < cost1 || cost2 > cost1+more {
			t.Errorf("%s: costs %d without bounds, %d with them", expression, cost1, cost2)
		}
	}
}

// FuzzSize checks that no call that the bounds let pass makes more than what was computed before.
func FuzzSize(f *testing.F) {
	f.Add("aXa", "a", "bb", int64(-1), "%s %.3f|%x", 1.5)
	f.Add("", "", "ä", int64(7), "%%.9f %s %s", 1e300)
	f.Add("\x00\xff\u00ad\"\\", "\xff", "", int64(0), "%X%s%e", math.Copysign(0, -1))
	f.Add("", "\x00", "0", int64(0), "%s%f", 1e300) // commas between thousands
	set, err := Install().Extend(environment.VersionedOptions{IntroducedVersion: environment.DefaultCompatibilityVersion(), EnvOptions: []cel.EnvOption{
		cel.Variable("a", cel.StringType), cel.Variable("b", cel.StringType), cel.Variable("c", cel.StringType), cel.Variable("n", cel.IntType),
		cel.Variable("f", cel.StringType), cel.Variable("d", cel.DoubleType),
	}})
	if err != nil {
		f.Fatal(err)
	}
	env := set.StoredExpressionsEnv()
	functions, err := newLibrary(env)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, a, b, c string, n int64, format string, d float64) {
		texts := types.DefaultTypeAdapter.NativeToValue([]string{a, b, c})
		nested := types.DefaultTypeAdapter.NativeToValue([]any{[]any{a, []byte(b), d}, map[string]any{c: a, b: []any{n}}})
		values := types.DefaultTypeAdapter.NativeToValue([]any{a, d, c})
		for _, call := range []struct {
			name string
			args []ref.Val
		}{
			{"replace", []ref.Val{types.String(a), types.String(b), types.String(c)}},
			{"replace", []ref.Val{types.String(a), types.String(b), types.String(c), types.Int(n)}},
			{"join", []ref.Val{texts}}, {"join", []ref.Val{texts, types.String(c)}},
			{"format", []ref.Val{types.String(format), values}}, {"format", []ref.Val{types.String(format), texts}},
			{"format", []ref.Val{types.String(format), nested}}, {"format", []ref.Val{types.String("%s%s"), nested}},
			{"flatten", []ref.Val{nested}}, {"flatten", []ref.Val{nested, types.Int(n)}},
			{"lists.range", []ref.Val{types.Int(n)}},
		} {
			limit := int64(100_000)
			size := bounds[call.name].size(call.args, limit)
			if size > limit {
				continue
			}
			var made int64
			switch v := functions.calls[call.name](call.args...).(type) {
			case types.String:
				made = int64(len(v))
			case *types.Err:
			default:
				n, _ := length(v)
				made = int64(n)
			}
			if made > size && size >= 0 || made > 0 && size < 0 {
				t.Errorf("%s%v made %d, not %d", call.name, call.args, made, size)
			}
		}
	})
}
