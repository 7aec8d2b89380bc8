package reach

import (
	"context"
	"fmt"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// A node serves 64 streams at a time (hub/dispatch). Connections leave room for logs, exec and port-forward, and one user leaves
// room for others.
const (
	maxNode = 40
	maxUser = 24 // of one node
)

// slots bound the connections of each node. Who finds none free waits, until its context ends. The zero value is ready.
type slots struct {
	mu    sync.Mutex
	nodes map[string]*nodeSlots // those in use; guarded by mu
}

// nodeSlots are those of one node. Guarded by slots.mu.
type nodeSlots struct {
	used    int
	waiting int
	by      map[string]int // by user's name, no zeros
	freed   chan struct{}  // closed and replaced when one is given back
}

// take waits for a slot of a node. release gives it back; calling it again does nothing.
func (s *slots) take(ctx context.Context, node, user string) (release func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.nodes[node]
	if n == nil {
		if s.nodes == nil {
			s.nodes = map[string]*nodeSlots{}
		}
		n = &nodeSlots{by: map[string]int{}, freed: make(chan struct{})}
		s.nodes[node] = n
	}
	n.waiting++
	defer func() {
		n.waiting--
		s.drop(node, n)
	}()
	for n.used >= maxNode || n.by[user] >= maxUser {
		freed := n.freed
		s.mu.Unlock()
		select {
		case <-freed:
		case <-ctx.Done():
		}
		s.mu.Lock()
		if ctx.Err() != nil {
			return nil, apierrors.NewTooManyRequests(fmt.Sprintf("node %s carries %d of %d connections, %d of at most %d of this user; try again when some have ended",
				node, n.used, maxNode, n.by[user], maxUser), 1)
		}
	}
	n.used++
	n.by[user]++
	return sync.OnceFunc(func() { s.give(node, user) }), nil
}

// give returns a slot.
func (s *slots) give(node, user string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.nodes[node]
	n.used--
	if n.by[user]--; n.by[user] == 0 {
		delete(n.by, user)
	}
	close(n.freed)
	n.freed = make(chan struct{})
	s.drop(node, n)
}

// drop forgets a node that nobody uses. s.mu is held.
func (s *slots) drop(node string, n *nodeSlots) {
	if n.used == 0 && n.waiting == 0 {
		delete(s.nodes, node)
	}
}
