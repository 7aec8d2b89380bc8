package desired

import (
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/wire"
)

// referred follows a source of which a node gets the objects that its pods refer to. It composes only those.
type referred struct {
	Source
	objects map[types.NamespacedName]*target // those that pods of open sets refer to
}

// target is what pods of open sets refer to.
type target struct {
	object *wire.Object // nil: does not exist
	nodes  map[*set]int // how many pods of a set refer to it; never 0
}

// ref is a reference of a pod.
type ref struct {
	from *referred
	name types.NamespacedName
}

func newReferred(src Source) *referred {
	return &referred{Source: src, objects: map[types.NamespacedName]*target{}}
}

// forget removes all references of a set to an object, without a change of the set: it is about to be closed.
func (r *referred) forget(n *set, name types.NamespacedName) {
	if t := r.objects[name]; t != nil {
		delete(t.nodes, n)
		if len(t.nodes) == 0 {
			delete(r.objects, name)
		}
	}
}

// hold adds a reference of a set to an object.
func (s *Sets) hold(n *set, r ref) {
	t := r.from.objects[r.name]
	if t == nil {
		o, _ := s.cfg.Reader.Get(r.from.GVK, r.name.Namespace, r.name.Name)
		t = &target{object: s.target(r.from, o), nodes: map[*set]int{}}
		r.from.objects[r.name] = t
	}
	t.nodes[n]++
	if t.nodes[n] == 1 && t.object != nil {
		s.put(n, t.object)
	}
}

// release removes a reference of a set to an object.
func (s *Sets) release(n *set, r ref) {
	t := r.from.objects[r.name]
	if t == nil {
		return
	}
	if t.nodes[n]--; t.nodes[n] > 0 {
		return
	}
	if t.object != nil {
		s.remove(n, t.object.ID)
	}
	r.from.forget(n, r.name)
}

// target returns the composed object that pods refer to; nil when it does not exist.
func (s *Sets) target(r *referred, o kube.Object) *wire.Object {
	if o == nil {
		return nil
	}
	var parts []kube.Object
	if r.With != nil {
		if gvk, name := r.With(o); name.Name != "" {
			if part, ok := s.cfg.Reader.Get(gvk, name.Namespace, name.Name); ok {
				parts = append(parts, part)
			}
		}
	}
	w, _ := s.compose(&r.Source, o, parts)
	return w
}

func (s *Sets) changeReferred(r *referred, old, new kube.Object) {
	o := new
	if o == nil {
		o = old
	}
	t := r.objects[nameOf(o)]
	if t == nil {
		return // no pod of an open set refers to it
	}
	before := t.object
	t.object = s.target(r, new)
	for n := range t.nodes {
		if before != nil && (t.object == nil || t.object.ID != before.ID) {
			s.remove(n, before.ID)
		}
		if t.object != nil {
			s.put(n, t.object)
		}
	}
}
