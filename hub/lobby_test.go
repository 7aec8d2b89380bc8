package hub

import (
	"net"
	"net/netip"
	"testing"
)

// peer is a connection of that address.
type peer struct {
	net.Conn
	from   string
	closed bool
}

func (p *peer) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(p.from)) }
func (p *peer) Close() error         { p.closed = true; return nil }

// A crowd at one address pushes out its own; who comes with credentials stays, whatever the crowd does.
func TestLobby(t *testing.T) {
	l := newLobby()
	known := &peer{from: "192.0.2.7:1"}
	g := l.enter(known)
	g.know("alice")
	shy := &peer{from: "192.0.2.8:1"}
	l.enter(shy)
	var crowd []*peer
	for a := range 5 {
		for range 2 * maxStrangersPerAddress {
			p := &peer{from: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(a)}), 1).String()}
			crowd = append(crowd, p)
			l.enter(p)
		}
	}
	if known.closed || shy.closed {
		t.Errorf("closed: known %v, the one stranger of another address %v", known.closed, shy.closed)
	}
	open := 0
	for _, p := range crowd {
		if !p.closed {
			open++
		}
	}
	if open != maxStrangers-1 || l.strangers.Len() != maxStrangers {
		t.Errorf("%d of the crowd are in, %d strangers are counted", open, l.strangers.Len())
	}
	if crowd[len(crowd)-1].closed {
		t.Error("the newest was turned out")
	}
	g.Close()
	if l.known != 0 || len(l.byUser) != 0 {
		t.Errorf("%d known, %v", l.known, l.byUser)
	}
}

// One user cannot have all the room of those who are known.
func TestLobbyOfKnown(t *testing.T) {
	l := newLobby()
	for range maxKnownPerUser + 10 {
		l.enter(&peer{from: "192.0.2.7:1"}).know("greedy")
	}
	if l.byUser["greedy"] != maxKnownPerUser || l.strangers.Len() != 10 {
		t.Errorf("%d known of one user, %d wait", l.byUser["greedy"], l.strangers.Len())
	}
	g := l.enter(&peer{from: "192.0.2.9:1"})
	if g.know("other"); !g.own {
		t.Error("another user has no room")
	}
}

func TestAddressOf(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.7:80": "192.0.2.7/32", "[::ffff:192.0.2.7]:80": "192.0.2.7/32", "[2001:db8:1:2:3::4]:80": "2001:db8:1:2::/64", "[fe80::1%eth0]:80": "fe80::/64",
	} {
		if got := addressOf(&peer{from: in}); got.String() != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}
