package desired

import (
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/wire"
)

// shared follows a source whose objects every node gets.
type shared struct {
	Source
	objects map[types.NamespacedName]kube.Object
	parts   map[types.NamespacedName]map[string]kube.Object // by the object they are part of, and their own name
	sent    map[types.NamespacedName]version                // what nodes have
	stale   map[types.NamespacedName]struct{}               // to be composed again
	own     bool                                            // an object itself is stale, not only parts
}

// version is what nodes have of a shared object.
type version struct {
	id      wire.ID
	version uint64
}

func newShared(src Source) *shared {
	return &shared{
		Source: src, objects: map[types.NamespacedName]kube.Object{}, parts: map[types.NamespacedName]map[string]kube.Object{},
		sent: map[types.NamespacedName]version{}, stale: map[types.NamespacedName]struct{}{},
	}
}

func (x *shared) change(old, new kube.Object) {
	x.own = true
	if new == nil {
		delete(x.objects, nameOf(old))
		x.stale[nameOf(old)] = struct{}{}
		return
	}
	x.objects[nameOf(new)] = new
	x.stale[nameOf(new)] = struct{}{}
}

func (x *shared) changePart(old, new kube.Object) {
	if old != nil {
		if of := x.PartOf(old); of.Name != "" {
			delete(x.parts[of], old.GetName())
			if len(x.parts[of]) == 0 {
				delete(x.parts, of)
			}
			x.stale[of] = struct{}{}
		}
	}
	if new != nil {
		if of := x.PartOf(new); of.Name != "" {
			if x.parts[of] == nil {
				x.parts[of] = map[string]kube.Object{}
			}
			x.parts[of][new.GetName()] = new
			x.stale[of] = struct{}{}
		}
	}
}

// Stale is a shared object that has changed, or a part of it.
type Stale struct {
	from *shared
	name types.NamespacedName
}

// String returns kind, namespace and name.
func (k Stale) String() string { return string(k.from.Kind) + " " + text(k.name) }

// HasStale reports whether Stale would return anything, and whether a pod has to find some of it on its node when it starts.
func (s *Sets) HasStale() (any, beforePods bool) {
	for _, x := range s.shared {
		if len(x.stale) > 0 {
			any, beforePods = true, beforePods || x.BeforePods && x.own
		}
	}
	return any, beforePods
}

// Stale returns the shared objects that have changed since it was called last. Call Share for each.
func (s *Sets) Stale() (list []Stale) {
	for _, x := range s.shared {
		for name := range x.stale {
			list = append(list, Stale{x, name})
		}
		clear(x.stale)
		x.own = false
	}
	return list
}

// Share composes a shared object again, for all nodes.
func (s *Sets) Share(k Stale) {
	x := k.from
	var w *wire.Object
	if o := x.objects[k.name]; o != nil {
		var ok bool
		if w, ok = s.compose(&x.Source, o, slices.Collect(maps.Values(x.parts[k.name]))); !ok {
			return
		}
	}
	before, had := x.sent[k.name]
	if had && (w == nil || w.ID != before.id) {
		delete(x.sent, k.name)
		s.out.Ops = append(s.out.Ops, Op{Verb: Unshare, ID: before.id})
	}
	if w == nil || had && before == (version{w.ID, w.Version}) {
		return
	}
	x.sent[k.name] = version{w.ID, w.Version}
	s.out.Ops = append(s.out.Ops, Op{Verb: Share, ID: w.ID, Object: w})
}
