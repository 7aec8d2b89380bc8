package hub

import (
	"context"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// peer is a connection of that address.
type peer struct {
	net.Conn
	from   string
	closed bool
}

func (p *peer) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(p.from)) }
func (p *peer) Close() error         { p.closed = true; return nil }

// A crowd at some addresses makes room for its own; who comes with credentials stays, whatever the crowd does, and so does
// the only one of an address.
func TestLobby(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLobby()
		known := &peer{from: "192.0.2.7:1"}
		g := l.enter(t.Context(), known)
		g.know("alice")
		shy := &peer{from: "192.0.2.8:1"}
		l.enter(t.Context(), shy)
		var crowd []*peer
		let := make([]bool, 5*2*maxStrangersPerAddress)
		for a := range 5 {
			for range 2 * maxStrangersPerAddress {
				p := &peer{from: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(a)}), 1).String()}
				k := len(crowd)
				crowd = append(crowd, p)
				go func() { let[k] = l.enter(t.Context(), p) != nil }()
			}
		}
		synctest.Wait()
		if l.strangers.Len() != maxStrangers || l.turnedOut != 0 {
			t.Errorf("at once: %d strangers, %d had to go", l.strangers.Len(), l.turnedOut)
		}
		time.Sleep(10 * minStay)
		synctest.Wait()
		if known.closed || shy.closed {
			t.Errorf("closed: known %v, the one stranger of another address %v", known.closed, shy.closed)
		}
		open, in := 0, 0
		for k, p := range crowd {
			if !p.closed {
				open++
			}
			if let[k] {
				in++
			}
		}
		if open != maxStrangers-1 || l.strangers.Len() != maxStrangers || in != len(crowd) {
			t.Errorf("%d of the crowd are in, %d strangers are counted, %d of %d had a place", open, l.strangers.Len(), in, len(crowd))
		}
		g.Close()
		if l.known != 0 || len(l.byUser) != 0 || l.waiting.Len() != 0 || len(l.waitingBy) != 0 {
			t.Errorf("%d known, %v, %d wait, %v", l.known, l.byUser, l.waiting.Len(), l.waitingBy)
		}
	})
}

// A fleet behind one address that comes back all at once is let in, one after the other: nobody is sent away in the middle
// of a handshake, which would only have it come again.
func TestLobbyOfAFleet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLobby()
		var closed, served atomic.Int32
		for range maxStrangersPerAddress + maxWaitingPerAddress {
			go func() {
				p := &peer{from: "192.0.2.7:1"}
				ctx, cancel := context.WithTimeout(t.Context(), lobbyTimeout)
				defer cancel()
				g := l.enter(ctx, p)
				if g == nil {
					return
				}
				time.Sleep(minStay * 9 / 10) // a slow handshake
				if g.release(); p.closed {
					closed.Add(1)
				}
				served.Add(1)
			}()
		}
		synctest.Wait()
		if g := l.enter(t.Context(), &peer{from: "192.0.2.7:1"}); g != nil {
			t.Error("more wait than may")
		}
		if g := l.enter(t.Context(), &peer{from: "192.0.2.9:1"}); g == nil {
			t.Error("another address has no room")
		}
		time.Sleep(lobbyTimeout)
		synctest.Wait()
		if closed.Load() != 0 || served.Load() != maxStrangersPerAddress+maxWaitingPerAddress {
			t.Errorf("%d were served, %d closed", served.Load(), closed.Load())
		}
	})
}

// One user cannot have all the room of those who are known.
func TestLobbyOfKnown(t *testing.T) {
	l := newLobby()
	for range maxKnownPerUser + 10 {
		l.enter(t.Context(), &peer{from: "192.0.2.7:1"}).know("greedy")
	}
	if l.byUser["greedy"] != maxKnownPerUser || l.strangers.Len() != 10 {
		t.Errorf("%d known of one user, %d wait", l.byUser["greedy"], l.strangers.Len())
	}
	g := l.enter(t.Context(), &peer{from: "192.0.2.9:1"})
	if g.know("other"); !g.own {
		t.Error("another user has no room")
	}
}
