package celbound

import (
	"math"

	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"
	"github.com/google/cel-go/interpreter"
)

const (
	// perByte is what Kubernetes charges for a byte that is passed or made.
	perByte = 0.1
	// perList is what it charges for a call that makes a list.
	perList = 11
)

// trackers charge the calls whose cost says nothing of their result: what Kubernetes charges, and for each byte or item by which the
// result is larger than what it was made of. join and lists.range are charged by their results already.
func trackers() []interpreter.CostTrackerOption {
	replace := func(args []ref.Val, result ref.Val) *uint64 { return textCost(args[0], 2, result) }
	return []interpreter.CostTrackerOption{
		interpreter.OverloadCostTracker("string_replace_string_string", replace),
		interpreter.OverloadCostTracker("string_replace_string_string_int", replace),
		interpreter.OverloadCostTracker("string_format", func(args []ref.Val, result ref.Val) *uint64 { return textCost(args[0], 1, result) }),
		interpreter.OverloadCostTracker("list_flatten", flattenCost),
		interpreter.OverloadCostTracker("list_flatten_int", flattenCost),
	}
}

// textCost returns the cost of a call that passes text so many times and makes result; nil where it was not called with a text.
func textCost(text ref.Val, passes float64, result ref.Val) *uint64 {
	in, ok := text.(types.String)
	if !ok {
		return nil
	}
	runes, _ := in.Size().(types.Int)
	cost := uint64(math.Ceil(float64(runes) * passes * perByte))
	if out, ok := result.(types.String); ok && len(out) > len(in) {
		cost += uint64(math.Ceil(float64(len(out)-len(in)) * perByte))
	}
	return &cost
}

func flattenCost(args []ref.Val, result ref.Val) *uint64 {
	in, ok := length(args[0])
	if !ok {
		return nil
	}
	depth := 1.0
	if len(args) > 1 {
		d, _ := args[1].(types.Int)
		depth = max(0, float64(d))
	}
	cost := perList + uint64(min(depth*float64(in), math.MaxInt32)) // that is far above every limit
	if out, ok := length(result); ok && out > in {
		cost += out - in
	}
	return &cost
}

func length(v ref.Val) (uint64, bool) {
	list, ok := v.(traits.Lister)
	if !ok {
		return 0, false
	}
	n, _ := list.Size().(types.Int)
	return uint64(n), true
}
