package desired

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/internal/wire"
)

// holdBack takes those pods out of a set that its node does not have and that have to be pending.
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

// Pending reports whether a pod of a node's set is pending, so that the set is not complete.
func (s *Sets) Pending(node string) bool {
	n := s.open[node]
	return n != nil && len(n.pending) > 0
}

// Release sends a pending pod if it need not wait any more.
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
