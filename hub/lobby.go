package hub

import (
	"container/list"
	"context"
	"net"
	"net/netip"
	"sync"
)

// Bounds of the connections to the hub's port. Each may cost 64 KiB of headers and as much of TLS.
const (
	// maxStrangers bounds the connections of which nobody knows whose they are: in the TLS handshake, or without an
	// authenticated request yet.
	maxStrangers = 256
	// maxStrangersPerAddress is the part of them that one address may have (an IPv6 /64 counts as one).
	maxStrangersPerAddress = 64
	// maxKnown bounds the API connections that have shown good credentials, and maxKnownPerUser those of one user.
	maxKnown        = 1024
	maxKnownPerUser = maxKnown / 3
)

// lobby bounds connections. Strangers wait in it; over a bound the oldest stranger of the address that has most of them
// has to go, so that those who come with credentials, which takes moments, are let in whatever others do. Known
// connections have room of their own; over that they stay in the lobby, are served, and may have to go.
type lobby struct {
	mu        sync.Mutex
	strangers list.List // of *guest, oldest first; guarded by mu
	byAddress map[netip.Prefix]int
	known     int
	byUser    map[string]int
	turnedOut uint64 // strangers that had to go; grows only
}

func newLobby() *lobby {
	return &lobby{byAddress: map[netip.Prefix]int{}, byUser: map[string]int{}}
}

// guest is one connection that the lobby counts, until it is closed or released.
type guest struct {
	net.Conn
	lobby *lobby
	from  netip.Prefix
	place *list.Element // among the strangers; nil when known or released; guarded by lobby.mu
	user  string        // whose it is, when known; guarded by lobby.mu
	own   bool          // known; guarded by lobby.mu
}

// enter counts a new connection. It closes others to make room for it.
func (l *lobby) enter(c net.Conn) *guest {
	g := &guest{Conn: c, lobby: l, from: addressOf(c)}
	l.mu.Lock()
	var out *guest
	switch {
	case l.byAddress[g.from] >= maxStrangersPerAddress:
		out = l.oldest(g.from)
	case l.strangers.Len() >= maxStrangers:
		out = l.oldest(l.crowd())
	}
	if out != nil {
		l.remove(out)
		l.turnedOut++
	}
	g.place = l.strangers.PushBack(g)
	l.byAddress[g.from]++
	l.mu.Unlock()
	if out != nil {
		out.Conn.Close()
	}
	return g
}

// crowd is the address with most strangers. l.mu is held.
func (l *lobby) crowd() (most netip.Prefix) {
	for a, n := range l.byAddress {
		if n > l.byAddress[most] {
			most = a
		}
	}
	return most
}

// oldest is the stranger of that address who came first. l.mu is held.
func (l *lobby) oldest(from netip.Prefix) *guest {
	for e := l.strangers.Front(); e != nil; e = e.Next() {
		if g := e.Value.(*guest); g.from == from {
			return g
		}
	}
	return nil
}

// remove takes g off all counts. l.mu is held.
func (l *lobby) remove(g *guest) {
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

// know moves g out of the lobby, into its user's room, if there is any left.
func (g *guest) know(user string) {
	l := g.lobby
	l.mu.Lock()
	defer l.mu.Unlock()
	if g.own || g.place == nil || l.known >= maxKnown || l.byUser[user] >= maxKnownPerUser {
		return
	}
	l.remove(g)
	g.own, g.user = true, user
	l.known++
	l.byUser[user]++
}

// release ends the lobby's part: another bounds the connection from here on.
func (g *guest) release() {
	g.lobby.mu.Lock()
	defer g.lobby.mu.Unlock()
	g.lobby.remove(g)
}

// Close implements net.Conn.
func (g *guest) Close() error {
	g.release()
	return g.Conn.Close()
}

// addressOf is whose share a connection takes: its peer's address, of IPv6 the network that one machine may have.
func addressOf(c net.Conn) netip.Prefix {
	a, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		return netip.Prefix{}
	}
	ip := a.Addr().Unmap()
	bits := 32
	if ip.Is6() {
		bits = 64
	}
	p, err := ip.WithZone("").Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

type guestKey struct{}

// withGuest remembers in a request's context which connection it came on.
func withGuest(ctx context.Context, g *guest) context.Context {
	return context.WithValue(ctx, guestKey{}, g)
}

// knowGuest marks the connection of a request as user's.
func knowGuest(ctx context.Context, user string) {
	if g, ok := ctx.Value(guestKey{}).(*guest); ok {
		g.know(user)
	}
}
