package celbound

import (
	"fmt"

	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"
	"github.com/google/cel-go/interpreter"
)

// maxFields bounds the items of lists and maps in a field of an object that an expression makes: a mutation writes each of them out, with
// some 300 bytes of memory, also those that the lists share.
const maxFields = 100_000

// field evaluates the value of a field of an object that is made.
type field struct{ interpreter.Interpretable }

// Eval implements interpreter.Interpretable. It ends the evaluation if the value has more items than maxFields.
func (f field) Eval(vars interpreter.Activation) ref.Val {
	v := f.Interpretable.Eval(vars)
	if contained(v, maxFields) > maxFields {
		panic(interpreter.EvalCancelledError{Cause: interpreter.CostLimitExceeded,
			Message: fmt.Sprintf("operation cancelled: a field of an object would have more than %d items", maxFields)})
	}
	return v
}

// boundFields bounds the fields of an object.
func boundFields(c interpreter.InterpretableConstructor) {
	if t := c.Type(); t == types.ListType || t == types.MapType {
		return
	}
	values := c.InitVals() // the object's own slice
	for i, v := range values {
		values[i] = field{v}
	}
}

// contained counts the items in v, and in the lists and maps in it, until there are more than limit.
func contained(v ref.Val, limit int64) (n int64) {
	switch v := v.(type) {
	case traits.Mapper:
		for it := v.Iterator(); it.HasNext() == types.True && n <= limit; {
			n++
			if value, ok := v.Find(it.Next()); ok {
				n += contained(value, limit-n)
			}
		}
	case traits.Lister:
		for it := v.Iterator(); it.HasNext() == types.True && n <= limit; {
			n++
			n += contained(it.Next(), limit-n)
		}
	case *types.Optional:
		if v.HasValue() {
			return contained(v.GetValue(), limit)
		}
	}
	return n
}
