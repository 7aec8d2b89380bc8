package resource

import (
	"context"

	"petrel.dev/petrel/internal/kube"
)

type onceKey struct{}

// internals are the internal forms of a write's objects: the old one's, and the new one's from its validation on. A form is a third of what its
// object takes, and a rule that needs one would make it again.
type internals struct {
	of   [2]kube.Object
	form [2]any
}

// ConvertOnce returns a context in which Rules convert the old object, and the new one after it is prepared, once for all of them. It is for
// the rules of one write: what they validate must not change any more.
func ConvertOnce(ctx context.Context) context.Context {
	return context.WithValue(ctx, onceKey{}, &internals{})
}

// final returns what Internal does, for an object that does not change any more, and keeps it where the context has room for it.
func final[I any](ctx context.Context, obj kube.Object) *I {
	known, _ := ctx.Value(onceKey{}).(*internals)
	if known == nil {
		return Internal[I](obj)
	}
	for i, of := range known.of {
		if of == nil {
			in := Internal[I](obj)
			known.of[i], known.form[i] = obj, in
			return in
		}
		if in, ok := known.form[i].(*I); ok && of == obj {
			return in
		}
	}
	return Internal[I](obj)
}
