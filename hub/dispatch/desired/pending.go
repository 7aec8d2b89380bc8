package desired

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/internal/wire"
)

// patience is how long a pod is pending. Making a token takes milliseconds; a pod that still lacks one is sent without, and
// its node reports what is missing.
const patience = 5 * time.Second

// A pod is sent once its tokens are there, which are made beside the loop: a node that got it first would try to start it,
// fail, and report so in an event. Only a pod that the node does not have may be held back, since taking it out of the set
// would end it. So nothing is held back before it is known what the node has.

// wait reports whether a pod that is not in its node's set yet has to be held back.
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
	if s.out.Wake.IsZero() || until.Before(s.out.Wake) {
		s.out.Wake = until
	}
	return true
}

// holdBack takes those pods out of a set that its node does not have and that have to wait.
func (s *Sets) holdBack(now time.Time, n *set, entries []wire.Entry) {
	has := map[wire.ID]bool{}
	for _, e := range entries {
		if e.Kind == s.pods.Kind {
			has[e.ID] = true
		}
	}
	for uid, o := range s.pods.objects[n.node] {
		id := s.pods.id(uid)
		m, ok := n.members[id]
		if ok && !has[id] && s.wait(now, n, o.(*corev1.Pod)) && m.sent {
			m.sent = false
			n.members[id] = m
			s.remove(n, id)
		}
	}
}

// Pending reports whether a pod is held back from a node's set, so that the set is not complete.
func (s *Sets) Pending(node string) bool {
	n := s.open[node]
	return n != nil && len(n.pending) > 0
}

// Release sends a pending pod if it does not wait any more.
func (s *Sets) Release(now time.Time, node string, uid types.UID) {
	n := s.open[node]
	if n == nil {
		return
	}
	if _, pending := n.pending[uid]; !pending {
		return
	}
	if o := s.pods.objects[node][uid]; o != nil {
		s.give(now, n, s.pods, o)
	}
}

// Cancel sends a pending pod although it waits: what it waits for cannot be made.
func (s *Sets) Cancel(now time.Time, node string, uid types.UID) {
	if n := s.open[node]; n != nil {
		if _, pending := n.pending[uid]; pending {
			n.pending[uid] = time.Time{}
			s.Release(now, node, uid)
		}
	}
}

// Expire sends the node's pending pods that have waited long enough. It sets Wake when others remain.
func (s *Sets) Expire(now time.Time, node string) {
	if n := s.open[node]; n != nil {
		for uid := range n.pending {
			s.Release(now, node, uid)
		}
	}
}
