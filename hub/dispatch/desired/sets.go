package desired

import (
	"iter"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/wire"
)

// New returns Sets without objects and nodes.
func New(cfg Config) *Sets {
	s := &Sets{cfg: cfg, open: map[string]*set{}}
	for _, src := range cfg.Sources {
		s.follow(src.GVK)
		switch {
		case src.Node != nil:
			b := newBound(src)
			s.bound = append(s.bound, b)
			if src.GVK == kube.Pod {
				s.pods = b
			}
		case src.Refs != nil:
			s.referred = append(s.referred, newReferred(src))
		case src.All:
			s.shared = append(s.shared, newShared(src))
			if src.Part.Kind != "" {
				s.follow(src.Part)
			}
		}
	}
	return s
}

func (s *Sets) follow(gvk kube.GVK) {
	for _, k := range s.kinds {
		if k == gvk {
			return
		}
	}
	s.kinds = append(s.kinds, gvk)
}

// Kinds returns the kinds whose changes Change wants.
func (s *Sets) Kinds() []kube.GVK { return s.kinds }

// Pods returns the pods that are bound to a node, whether it has a session or not.
func (s *Sets) Pods(node string) iter.Seq[*corev1.Pod] {
	return func(yield func(*corev1.Pod) bool) {
		for _, o := range s.pods.objects[node] {
			if !yield(o.(*corev1.Pod)) {
				return
			}
		}
	}
}

// Change takes in one change of the feed. Shared objects are composed by Share, once for all changes of a round.
func (s *Sets) Change(now time.Time, c control.Change) {
	for _, b := range s.bound {
		if b.GVK == c.GVK {
			s.changeBound(now, b, c.Old, c.New)
		}
	}
	for _, r := range s.referred {
		if r.GVK == c.GVK {
			s.changeReferred(r, c.Old, c.New)
		}
	}
	for _, x := range s.shared {
		switch c.GVK {
		case x.GVK:
			x.change(c.Old, c.New)
		case x.Part:
			x.changePart(c.Old, c.New)
		}
	}
}

// Open composes the whole set of a node whose session begins. empty: the node has nothing, so it is known what it has.
// Otherwise Known or Have follows.
func (s *Sets) Open(now time.Time, node string, empty bool) {
	n := &set{node: node, members: map[wire.ID]member{}, pending: map[types.UID]time.Time{}, known: empty}
	s.open[node] = n
	for _, b := range s.bound {
		for _, o := range b.objects[node] {
			s.give(now, n, b, o)
		}
	}
}

// Known records that the node has exactly its set.
func (s *Sets) Known(node string) {
	if n := s.open[node]; n != nil {
		n.known = true
	}
}

// Have records what the node has. Pods that it does not have, and that wait for something, are taken out of the set again.
func (s *Sets) Have(now time.Time, node string, entries []wire.Entry) {
	if n := s.open[node]; n != nil {
		n.known = true
		s.holdBack(now, n, entries)
	}
}

// Close drops the set of a node whose session is over.
func (s *Sets) Close(node string) {
	n := s.open[node]
	if n == nil {
		return
	}
	for _, m := range n.members {
		for _, r := range m.refs {
			r.from.forget(n, r.name)
		}
	}
	delete(s.open, node)
}
