package svcproxy

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// group is the memory that listeners of one Service port share: whose turn it is, and who is bound to whom.
type group struct {
	turn atomic.Uint32

	mu     sync.Mutex
	sticky map[netip.Addr]binding // by client; nil without affinity
}

// binding is a client's session affinity. until moves on with every connection, as kube-proxy's does.
type binding struct {
	endpoint netip.AddrPort
	until    time.Time
}

// maxSticky bounds the memory of session affinity; beyond it, some client is forgotten for each new one.
const maxSticky = 16384

func newGroup() *group {
	g := &group{}
	g.turn.Store(rand.Uint32()) // so that a fleet that restarts does not choose one endpoint
	return g
}

// sequence is the order in which to try endpoints for a client, at most limit of them: its bound one if that still
// serves, then round robin, and those that failed lately last.
func (g *group) sequence(client netip.Addr, t *target, bad *suspects, now time.Time, limit int) []netip.AddrPort {
	n := len(t.endpoints)
	start := int(g.turn.Add(1) % uint32(n)) // int has 32 bits on a Pi's 32-bit system: half of all turns would be negative
	bound, hasBound := netip.AddrPort{}, false
	if t.affinity > 0 {
		bound, hasBound = g.bound(client, t, now)
	}
	out := make([]netip.AddrPort, 0, min(n, limit))
	if hasBound && !bad.is(bound, now) {
		out = append(out, bound)
	}
	for _, wantBad := range []bool{false, true} {
		for i := range n {
			if len(out) == limit {
				return out
			}
			e := t.endpoints[(start+i)%n]
			if bad.is(e, now) == wantBad && !slices.Contains(out, e) {
				out = append(out, e)
			}
		}
		if len(out) == n {
			break
		}
	}
	return out
}

func (g *group) bound(client netip.Addr, t *target, now time.Time) (netip.AddrPort, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	b, ok := g.sticky[client]
	if !ok || now.After(b.until) {
		return netip.AddrPort{}, false
	}
	_, still := slices.BinarySearchFunc(t.endpoints, b.endpoint, netip.AddrPort.Compare)
	return b.endpoint, still
}

// bind remembers that a client's connection went to an endpoint.
func (g *group) bind(client netip.Addr, t *target, endpoint netip.AddrPort, now time.Time) {
	if t.affinity <= 0 {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.sticky == nil {
		g.sticky = map[netip.Addr]binding{}
	}
	if _, known := g.sticky[client]; !known && len(g.sticky) >= maxSticky {
		for c, b := range g.sticky {
			if now.After(b.until) {
				delete(g.sticky, c)
			}
		}
		for c := range g.sticky {
			if len(g.sticky) < maxSticky {
				break
			}
			delete(g.sticky, c)
		}
	}
	g.sticky[client] = binding{endpoint, now.Add(t.affinity)}
}

// suspectFor is how long an endpoint that failed is tried last. Short: it only spares the connections of the moment
// the wait for a node that has gone dark.
const suspectFor = 10 * time.Second

// suspects are the endpoints that failed lately.
type suspects struct {
	n  atomic.Int32 // len(m), so that the common case takes no lock
	mu sync.Mutex
	m  map[netip.AddrPort]time.Time // until when
}

func (s *suspects) is(e netip.AddrPort, now time.Time) bool {
	if s.n.Load() == 0 {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	until, ok := s.m[e]
	if ok && now.After(until) {
		delete(s.m, e)
		s.n.Store(int32(len(s.m)))
		return false
	}
	return ok
}

func (s *suspects) add(e netip.AddrPort, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m == nil {
		s.m = map[netip.AddrPort]time.Time{}
	}
	for o, until := range s.m {
		if now.After(until) {
			delete(s.m, o)
		}
	}
	s.m[e] = now.Add(suspectFor)
	s.n.Store(int32(len(s.m)))
}

func (s *suspects) clear(e netip.AddrPort) {
	if s.n.Load() == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.m, e)
	s.n.Store(int32(len(s.m)))
}
