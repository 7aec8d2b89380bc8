package match

import (
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime"
)

// Again decides which mutations of a request run a second time: those that asked for it and ran before the object was changed
// by others. There are two rounds at most. The zero value is the first round.
type Again struct {
	second bool
	ran    map[string]bool // asked for it, ran, and nothing has changed since
	due    map[string]bool // asked for it, ran, and something has changed since
	// left is the object as the first round left it; nil unless something in it may run again.
	left    runtime.Object
	changed bool
}

// Begin begins a round. obj is the object as it is now.
func (g *Again) Begin(obj runtime.Object) {
	if g.second && g.left != nil && !equality.Semantic.DeepEqual(g.left, obj) {
		g.mark()
	}
}

// Skip reports whether the mutation with that key does not run in this round. What did not run in the first does not run in the
// second either.
func (g *Again) Skip(key string) bool { return g.second && !g.due[key] }

// Ran records that a mutation ran, whether it changed the object, and whether it wants to run again when another does.
func (g *Again) Ran(key string, changed, again bool) {
	if changed {
		g.changed = true
		g.mark()
	}
	if again {
		if g.ran == nil {
			g.ran = map[string]bool{}
		}
		g.ran[key] = true
	}
}

// mark makes all that ran so far run again.
func (g *Again) mark() {
	if g.due == nil {
		g.due = g.ran
	}
	for key := range g.ran {
		g.due[key] = true
	}
	g.ran = nil
}

// End ends a round, with the object as it is now. It reports whether the round has changed the object.
func (g *Again) End(obj runtime.Object) (changed bool) {
	changed = g.changed
	if !g.second && len(g.ran)+len(g.due) > 0 && obj != nil {
		g.left = obj.DeepCopyObject()
	}
	g.second, g.changed = true, false
	return changed
}
