// Package celbound bounds what one call of a function in a CEL expression may make. Kubernetes bounds an evaluation by its cost, and
// counts the cost of replace, format and flatten by what goes into them, and that of lists.range after the list was made:
// an expression of a hundred bytes can so take all memory there is.
//
//	"aaaa…".replace("a", "bbbb…").replace("b", "cccc…")      each call a thousand times what it takes
//
// Here the size of the result is computed before it is made, and an evaluation that would exceed the bound ends with an error. What
// passes is charged by the size of its result as well, so that the limit of the cost bounds the sum of all results: some 10 MB for one
// expression. The cost of a call whose result is not larger than its text is what Kubernetes charges.
//
// Lists that share their elements cost little to make, and are exponentially large for what writes them out: what counts the size of
// arguments counts each element as often as it is there, and so does the bound of the fields that a mutating policy makes.
//
// What has been compiled takes memory too, as long as it is kept: Kept keeps it while there is room in a Budget.
//
// Kubernetes' libraries, those of custom kinds too, derive every environment from one that the process has once. Install adds the
// bound to that one; nothing that compiles expressions can be without it.
package celbound

import (
	"fmt"
	"sync"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/functions"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/interpreter"
	"k8s.io/apiserver/pkg/cel/environment"
)

const (
	// maxBytes bounds a text that a call makes: as much as an object may have.
	maxBytes = 3 << 20
	// maxItems bounds a list that a call makes: as many as Kubernetes' limit of the cost of one expression allows.
	maxItems = 1_000_000
)

// bound is the largest result of a function.
type bound struct {
	limit int64
	unit  string
	// size returns the size that the result for args will have. It may stop counting above limit. Arguments of types that the function
	// does not take have no size: the function refuses them.
	size func(args []ref.Val, limit int64) int64
}

// bounds are those of the functions whose results can be far larger than what their cost says, by name.
var bounds = map[string]bound{
	"replace":     {maxBytes, "bytes", replaced},
	"join":        {maxBytes, "bytes", joined},
	"format":      {maxBytes, "bytes", formatted},
	"flatten":     {maxItems, "items", flattened},
	"lists.range": {maxItems, "items", ranged},
}

// Install adds the bounds to the environment that all compilers of the process derive theirs from, once, and returns it. What has been
// derived before is without them, and deriving must not happen at the same time: the hub calls it before anything else. It is cheap.
func Install() *environment.EnvSet { return installed() }

var installed = sync.OnceValue(func() *environment.EnvSet {
	set := environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion())
	for _, env := range []*cel.Env{set.NewExpressionsEnv(), set.StoredExpressionsEnv()} {
		l, err := newLibrary(env)
		if err == nil {
			_, err = cel.Lib(l)(env) // in place: an option changes the environment that it gets
		}
		if err != nil {
			panic(fmt.Sprintf("bound the CEL environment: %v", err)) // as MustBaseEnvSet does: no configuration leads here
		}
	}
	return set
})

// library is a cel.Library that adds nothing to the language, and the bounds to each program.
type library struct {
	calls map[string]functions.FunctionOp // the implementations of the functions in bounds
}

func newLibrary(env *cel.Env) (*library, error) {
	declared := env.Functions()
	l := &library{calls: map[string]functions.FunctionOp{}}
	for name := range bounds {
		f, ok := declared[name]
		if !ok {
			continue // the environment for new expressions may not have it yet
		}
		bindings, err := f.Bindings()
		if err != nil {
			return nil, fmt.Errorf("function %s: %w", name, err)
		}
		for _, b := range bindings {
			if b.Operator == name { // the one that chooses between the overloads
				l.calls[name] = operation(b)
			}
		}
		if l.calls[name] == nil {
			return nil, fmt.Errorf("function %s has no implementation", name)
		}
	}
	return l, nil
}

// operation returns the implementation of an overload, whatever its form; nil for none.
func operation(o *functions.Overload) functions.FunctionOp {
	switch {
	case o.Function != nil:
		return o.Function
	case o.Binary != nil:
		return func(args ...ref.Val) ref.Val { return o.Binary(args[0], args[1]) }
	case o.Unary != nil:
		return func(args ...ref.Val) ref.Val { return o.Unary(args[0]) }
	}
	return nil
}

// CompileOptions implements cel.Library.
func (l *library) CompileOptions() []cel.EnvOption { return nil }

// ProgramOptions implements cel.Library.
func (l *library) ProgramOptions() []cel.ProgramOption {
	return []cel.ProgramOption{cel.CustomDecorator(l.decorate), cel.CostTrackerOptions(trackers()...)}
}

// decorate replaces a call of a bounded function by one that looks at its arguments first, and bounds the fields of objects.
func (l *library) decorate(i interpreter.Interpretable) (interpreter.Interpretable, error) {
	if c, ok := i.(interpreter.InterpretableConstructor); ok {
		boundFields(c)
	}
	call, ok := i.(interpreter.InterpretableCall)
	if !ok {
		return i, nil
	}
	name := call.Function()
	b, bounded := bounds[name]
	do := l.calls[name]
	if !bounded || do == nil {
		return i, nil
	}
	return interpreter.NewCall(call.ID(), name, call.OverloadID(), call.Args(), func(args ...ref.Val) ref.Val {
		if b.size(args, b.limit) > b.limit {
			// The way in which the interpreter itself ends an evaluation that costs too much; the program makes an error of it. An error
			// value would not end it: "||" passes over one.
			panic(interpreter.EvalCancelledError{Cause: interpreter.CostLimitExceeded,
				Message: fmt.Sprintf("operation cancelled: %s: the result would have more than %d %s", name, b.limit, b.unit)})
		}
		return do(args...)
	}), nil
}
