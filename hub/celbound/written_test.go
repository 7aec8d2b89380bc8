package celbound

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types/ref"
	"k8s.io/apiserver/pkg/cel/common"
	"k8s.io/apiserver/pkg/cel/environment"
	"k8s.io/apiserver/pkg/cel/mutation"
)

// mutated evaluates an expression as a mutating policy does.
func mutated(t *testing.T, expression string) ref.Val {
	t.Helper()
	set, err := Install().Extend(environment.VersionedOptions{IntroducedVersion: environment.DefaultCompatibilityVersion(),
		EnvOptions: []cel.EnvOption{common.ResolverEnvOption(&mutation.DynamicTypeResolver{})}})
	if err != nil {
		t.Fatal(err)
	}
	v, _, err := evaluate(t, set, expression, map[string]any{})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestWritten checks that the parts of a result count as often as they are there, in no time, wherever they are shared.
func TestWritten(t *testing.T) {
	const limit = 1 << 30
	var nested strings.Builder
	nested.WriteString(`[Object.a{b: "x"}]`)
	for range 40 {
		nested.WriteString(`.map(o, Object.a{p: o, q: o, m: {"k": o}, l: [o, o]})`)
	}
	for name, c := range map[string]struct {
		expression  string
		least, most int64
	}{
		"a text":                    {`"` + strings.Repeat("x", 1000) + `"`, 1000, 2000},
		"a number":                  {`7`, 1, 1000},
		"an object":                 {`Object{a: Object.a{b: "x", c: [1, 2, 3]}}`, 7 * perItem, 10 * perItem},
		"objects that share":        {nested.String(), limit, 1 << 62},
		"many patches of one value": {`[[1,2,3,4,5,6,7,8,9,10].map(x, "` + strings.Repeat("x", 10_000) + `")].map(v, lists.range(15000).map(i, JSONPatch{op: "add", path: "/x", value: v}))[0]`, limit, 1 << 62},
		"a patch":                   {`[JSONPatch{op: "add", path: "/data/b", value: {"a": "b"}}]`, 4 * perItem, 6 * perItem},
		"shared maps":               {`[{"a": "b"}]` + strings.Repeat(`.map(m, [m, m])`, 40), limit, 1 << 62},
	} {
		if n := Written(mutated(t, c.expression), limit); n < c.least || n > c.most {
			t.Errorf("%s: %d, want %d to %d", name, n, c.least, c.most)
		}
	}
	if p := PatchOf(mutated(t, `[JSONPatch{op: "add", path: "/a", value: [1, 2]}, JSONPatch{op: "test", path: "/b", value: "four"}]`)); p != (Patch{2, 1, 6}) {
		t.Errorf("%+v", p)
	}
	if p := PatchOf(mutated(t, `Object{a: [1]}`)); p != (Patch{}) {
		t.Errorf("%+v", p)
	}
}

// TestKept checks that compiled expressions are kept until there are too many, that others are compiled each time, and that those kept
// count for the next budget.
func TestKept(t *testing.T) {
	var b Budget
	all := make([]Kept[string], 1000)
	compiled := map[int]int{}
	get := func(b *Budget) {
		for i := range all {
			got := all[i].Get(b, Weight("x"), func() string { compiled[i]++; return fmt.Sprint(i) })
			if got != fmt.Sprint(i) {
				t.Fatalf("%d is %s", i, got)
			}
		}
	}
	get(&b)
	get(&b)
	kept := 0
	for _, n := range compiled {
		if n == 1 {
			kept++
		}
	}
	if want := maxKept / int(Weight("x")); kept != want {
		t.Errorf("%d are kept, want %d", kept, want)
	}
	var next Budget
	for i := range all {
		all[i].Carry(&next)
	}
	clear(compiled)
	get(&next)
	if len(compiled) != len(all)-kept {
		t.Errorf("%d were compiled again", len(compiled))
	}
	var one Kept[int]
	var wg sync.WaitGroup
	calls := 0
	for range 8 {
		wg.Go(func() { one.Get(new(Budget), 1, func() int { calls++; return 1 }) })
	}
	wg.Wait()
	if calls != 1 {
		t.Errorf("compiled %d times at once", calls)
	}
}
