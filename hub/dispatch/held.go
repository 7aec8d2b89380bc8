package dispatch

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/internal/wire"
)

// patience is how long a pod waits for its tokens. Making one takes milliseconds; a pod that still has none is sent without,
// and its node says what it lacks.
const patience = 5 * time.Second

// A pod is sent once its tokens are there, which are made beside the loop: a node that got it first would try to start it,
// fail, and tell so in an event. Only a pod that the node does not have may be held back, since taking it out of the set
// would end it. So nothing is held before it is known what the node has.

// waits tells whether a pod that is not in its node's set yet has to wait for a token.
func (s *desired) waits(n *node, p *corev1.Pod) bool {
	now := time.Now()
	until, held := n.desired.held[p.UID]
	switch {
	case !n.desired.known:
		return false
	case !lacksToken(n, p), held && !now.Before(until):
		delete(n.desired.held, p.UID)
		return false
	case !held:
		until = now.Add(patience)
		n.desired.held[p.UID] = until
	}
	s.d.wakeAt(until)
	return true
}

// lacksToken tells whether a token of the pod is still to be made. A pod that has ended gets none.
func lacksToken(n *node, p *corev1.Pod) bool {
	if p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
		return false
	}
	for _, t := range n.tokens {
		if t.pod.UID == p.UID && t.obj == nil && t.expires.IsZero() {
			return true
		}
	}
	return false
}

// letGo sends a pod that has been held back if it need not wait any more.
func (s *desired) letGo(n *node, uid types.UID) {
	if _, held := n.desired.held[uid]; !held {
		return
	}
	if p := s.pods[n.name][uid]; p != nil {
		s.setPod(n, p)
	}
}

// giveUp sends a pod although a token of it could not be made.
func (s *desired) giveUp(n *node, uid types.UID) {
	if _, held := n.desired.held[uid]; held {
		n.desired.held[uid] = time.Time{}
		s.letGo(n, uid)
	}
}

// overdue lets those go that have waited long enough.
func (s *desired) overdue(n *node) {
	for uid := range n.desired.held {
		s.letGo(n, uid)
	}
}

// holdUnsent takes those pods back out of a new set that the node does not have and that lack a token.
func (s *desired) holdUnsent(n *node, h *wire.Have) {
	has := map[string]bool{}
	for _, e := range h.Entries {
		if e.Kind == wire.KindPod {
			has[e.UID] = true
		}
	}
	n.desired.known = true
	for uid := range n.desired.pods {
		if p := s.pods[n.name][uid]; p != nil && !has[string(uid)] && s.waits(n, p) {
			s.remove(n, wire.ID{Kind: wire.KindPod, UID: string(uid)})
		}
	}
}
