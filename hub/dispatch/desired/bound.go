package desired

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/wire"
)

// patience is how long a pod is pending. Making a token takes milliseconds; a pod whose token is still missing is sent without it,
// and its node reports what is missing.
const patience = 5 * time.Second

// bound follows a source whose objects are each for one node.
type bound struct {
	Source
	objects map[string]map[types.UID]kube.Object // by Node name, of all nodes
}

func newBound(src Source) *bound {
	return &bound{Source: src, objects: map[string]map[types.UID]kube.Object{}}
}

// keep stores an object of a node.
func (b *bound) keep(node string, o kube.Object) {
	if b.objects[node] == nil {
		b.objects[node] = map[types.UID]kube.Object{}
	}
	b.objects[node][o.GetUID()] = o
}

// drop removes an object of a node.
func (b *bound) drop(node string, uid types.UID) {
	delete(b.objects[node], uid)
	if len(b.objects[node]) == 0 {
		delete(b.objects, node)
	}
}

// id returns the ID in a set of the object with a UID.
func (b *bound) id(uid types.UID) wire.ID { return wire.ID{Kind: b.Kind, UID: string(uid)} }

func (s *Sets) changeBound(now time.Time, b *bound, old, new kube.Object) {
	from, to := "", ""
	if old != nil {
		from = b.Node(old)
	}
	if new != nil {
		to = b.Node(new)
	}
	if from != "" && (to != from || new.GetUID() != old.GetUID()) {
		b.drop(from, old.GetUID())
		if n := s.open[from]; n != nil {
			s.take(n, b.id(old.GetUID()))
		}
	}
	if to == "" {
		return
	}
	b.keep(to, new)
	if n := s.open[to]; n != nil {
		s.give(now, n, b, new)
	}
}

// give puts an object into its node's set as it is now, with what it refers to; or makes it pending, see wait.
func (s *Sets) give(now time.Time, n *set, b *bound, o kube.Object) {
	id := b.id(o.GetUID())
	if b.Hides != "" {
		s.out.Ops = append(s.out.Ops, Op{Verb: Hide, Node: n.node, ID: wire.ID{Kind: b.Hides, UID: id.UID}})
	}
	w, ok := s.compose(&b.Source, o, nil)
	switch {
	case !ok:
		return
	case w == nil:
		s.take(n, id)
		return
	}
	m := n.members[id]
	if p, ok := o.(*corev1.Pod); ok {
		m.refs = s.refer(n, m.refs, p)
		m.sent = m.sent || !s.wait(now, n, p)
	} else {
		m.sent = true
	}
	n.members[id] = m
	if m.sent {
		s.put(n, w)
	}
}

// wait reports whether a pod that is not in its node's set yet has to be pending. A pod is sent once its tokens are there,
// which are made beside the loop: a node that got it first would try to start it, fail, and report so in an event. Only a pod
// that the node does not have may be pending, because its removal from the set would end it. So no pod is pending before it is
// known what the node has.
func (s *Sets) wait(now time.Time, n *set, p *corev1.Pod) bool {
	until, pending := n.pending[p.UID]
	switch {
	case !n.known:
		return false
	case s.cfg.Waits == nil || !s.cfg.Waits(n.node, p), pending && !now.Before(until):
		delete(n.pending, p.UID)
		return false
	case !pending:
		until = now.Add(patience)
		n.pending[p.UID] = until
	}
	s.out.Waiting = append(s.out.Waiting, n.node)
	if s.out.Wake.IsZero() || until.Before(s.out.Wake) {
		s.out.Wake = until
	}
	return true
}

// take removes an object from a set, with what only it refers to.
func (s *Sets) take(n *set, id wire.ID) {
	m, ok := n.members[id]
	if !ok {
		return
	}
	if m.sent {
		s.remove(n, id)
	}
	for _, r := range m.refs {
		s.release(n, r)
	}
	delete(n.members, id)
	delete(n.pending, types.UID(id.UID))
}

// refer adds to a node's set what a pod refers to now, and removes what only it referred to before.
func (s *Sets) refer(n *set, before []ref, p *corev1.Pod) (after []ref) {
	for _, r := range s.referred {
		for _, name := range r.Refs(p) {
			after = append(after, ref{r, name})
		}
	}
	for _, r := range after {
		if !slices.Contains(before, r) {
			s.hold(n, r)
		}
	}
	for _, r := range before {
		if !slices.Contains(after, r) {
			s.release(n, r)
		}
	}
	return after
}
