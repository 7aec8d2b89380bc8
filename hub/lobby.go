package hub

import (
	"container/list"
	"context"
	"net"
	"net/netip"
	"sync"
	"time"

	"petrel.dev/petrel/hub/broker"
)

// Bounds of the connections to the hub's port.
const (
	// maxStrangers bounds the connections that have not been authenticated: in the TLS handshake, or without an authenticated
	// request yet. Each may cost 64 KiB of headers and as much of TLS.
	maxStrangers = 256
	// maxStrangersPerAddress is the part of them that one address may have (an IPv6 /64 counts as one).
	maxStrangersPerAddress = 64
	// minStay is how long a stranger may stay when others wait for its place: a handshake over a slow link fits, or on a slow
	// board while many others are under way.
	minStay = 2 * time.Second
	// maxWaiting bounds the connections that wait for a place among the strangers, and maxWaitingPerAddress those of one
	// address. TLS has not begun: each costs a socket and a goroutine.
	maxWaiting           = 512
	maxWaitingPerAddress = maxWaiting / 2
	// maxKnown bounds the API connections that have shown good credentials, and maxKnownPerUser those of one user.
	maxKnown        = 1024
	maxKnownPerUser = maxKnown / 3
)

// lobby bounds connections. One without an authenticated request, a stranger, has a place in it until it is known. When all places
// are taken, newcomers wait in the order in which they came: so a fleet that returns all at once from behind one address gets in,
// one after the other. While any waits, the oldest stranger of the address with most of them is closed when its minStay is over.
// To authenticate takes moments, so clients with credentials get in whatever others do. Known connections have room of their own;
// beyond that they keep their place in the lobby, are served, and may be closed.
type lobby struct {
	minStay time.Duration // set before use

	mu        sync.Mutex
	strangers list.List            // of *guest, oldest first; guarded by mu
	byAddress map[netip.Prefix]int // strangers by address, no zeros; guarded by mu
	waiting   list.List            // of *guest, oldest first; guarded by mu
	waitingBy map[netip.Prefix]int // waiting by address, no zeros; guarded by mu
	armed     bool                 // a timer is going to look at the waiting again; guarded by mu
	known     int                  // known connections, at most maxKnown; guarded by mu
	byUser    map[string]int       // known by user, no zeros; guarded by mu
	turnedOut uint64               // strangers that were closed for others; grows only; guarded by mu
}

func newLobby() *lobby {
	return &lobby{minStay: minStay, byAddress: map[netip.Prefix]int{}, waitingBy: map[netip.Prefix]int{}, byUser: map[string]int{}}
}

// guest is one connection that the lobby counts, until it is closed or released.
type guest struct {
	net.Conn
	lobby *lobby        // never nil
	from  netip.Prefix  // the address, or the /64 of IPv6
	wait  *list.Element // in lobby.waiting; nil otherwise; guarded by lobby.mu
	in    chan struct{} // closed when it has got its place
	since time.Time     // of place
	place *list.Element // in lobby.strangers; nil when known or released; guarded by lobby.mu
	user  string        // whose it is, when known; guarded by lobby.mu
	own   bool          // counted in lobby.known; guarded by lobby.mu
}

// enter waits for a place for a new connection. It returns nil when too many wait already, or ctx has ended; the connection
// is the caller's then.
func (l *lobby) enter(ctx context.Context, c net.Conn) *guest {
	g := &guest{Conn: c, lobby: l, from: broker.Network(c.RemoteAddr()), in: make(chan struct{})}
	queued := false
	l.change(func() {
		if queued = l.waiting.Len() < maxWaiting && l.waitingBy[g.from] < maxWaitingPerAddress; queued {
			g.wait = l.waiting.PushBack(g)
			l.waitingBy[g.from]++
		}
	})
	if !queued {
		return nil
	}
	select {
	case <-g.in:
		return g
	case <-ctx.Done():
		g.release()
		return nil
	}
}

// change runs f with l.mu held, then admits those who wait and may enter, and closes those whose places they take.
func (l *lobby) change(f func()) {
	l.mu.Lock()
	f()
	out := l.admit(time.Now())
	l.mu.Unlock()
	for _, g := range out {
		g.Conn.Close()
	}
}

// admit gives places to those who wait, and returns those to close for them. When some still wait, it arms a timer that calls it
// again. l.mu is held.
func (l *lobby) admit(now time.Time) (out []*guest) {
	full := map[netip.Prefix]bool{}
	for e := l.waiting.Front(); e != nil; {
		g := e.Value.(*guest)
		e = e.Next()
		if full[g.from] {
			continue
		}
		leaver, ok := l.room(g.from, now)
		if !ok {
			full[g.from] = true
			continue
		}
		if leaver != nil {
			l.remove(leaver)
			l.turnedOut++
			out = append(out, leaver)
		}
		l.remove(g)
		g.since, g.place = now, l.strangers.PushBack(g)
		l.byAddress[g.from]++
		close(g.in)
	}
	if l.waiting.Len() > 0 && !l.armed {
		l.armed = true
		time.AfterFunc(l.minStay/4, func() { l.change(func() { l.armed = false }) })
	}
	return out
}

// room reports whether a connection from an address may enter, and which one has to be closed for it, nil for none. l.mu is held.
func (l *lobby) room(from netip.Prefix, now time.Time) (leaver *guest, ok bool) {
	switch {
	case l.byAddress[from] >= maxStrangersPerAddress:
		leaver = l.oldest(from)
	case l.strangers.Len() >= maxStrangers:
		leaver = l.oldest(l.crowd())
	default:
		return nil, true
	}
	return leaver, leaver != nil && now.Sub(leaver.since) >= l.minStay
}

// crowd returns the address with most strangers. l.mu is held.
func (l *lobby) crowd() (most netip.Prefix) {
	for a, n := range l.byAddress {
		if n > l.byAddress[most] {
			most = a
		}
	}
	return most
}

// oldest returns the stranger of that address that came first. l.mu is held.
func (l *lobby) oldest(from netip.Prefix) *guest {
	for e := l.strangers.Front(); e != nil; e = e.Next() {
		if g := e.Value.(*guest); g.from == from {
			return g
		}
	}
	return nil
}

// remove takes g out of all counts. l.mu is held.
func (l *lobby) remove(g *guest) {
	if g.wait != nil {
		l.waiting.Remove(g.wait)
		g.wait = nil
		if l.waitingBy[g.from]--; l.waitingBy[g.from] == 0 {
			delete(l.waitingBy, g.from)
		}
	}
	if g.place != nil {
		l.strangers.Remove(g.place)
		g.place = nil
		if l.byAddress[g.from]--; l.byAddress[g.from] == 0 {
			delete(l.byAddress, g.from)
		}
	}
	if g.own {
		g.own = false
		l.known--
		if l.byUser[g.user]--; l.byUser[g.user] == 0 {
			delete(l.byUser, g.user)
		}
	}
}

// know counts g as a connection of user, and frees its place in the lobby, if the user has room left.
func (g *guest) know(user string) {
	l := g.lobby
	l.change(func() {
		if g.own || g.place == nil || l.known >= maxKnown || l.byUser[user] >= maxKnownPerUser {
			return
		}
		l.remove(g)
		g.own, g.user = true, user
		l.known++
		l.byUser[user]++
	})
}

// release ends the lobby's part: another bounds the connection from here on.
func (g *guest) release() {
	g.lobby.change(func() { g.lobby.remove(g) })
}

// Close implements net.Conn.
func (g *guest) Close() error {
	g.release()
	return g.Conn.Close()
}

type guestKey struct{}

// withGuest returns a request's context with the connection that it came on.
func withGuest(ctx context.Context, g *guest) context.Context {
	return context.WithValue(ctx, guestKey{}, g)
}

// knowGuest marks the connection of a request as one of user.
func knowGuest(ctx context.Context, user string) {
	if g, ok := ctx.Value(guestKey{}).(*guest); ok {
		g.know(user)
	}
}
