package broker

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// fake is a connection that only knows where it comes from.
type fake struct {
	net.Conn
	closed bool
}

func (f *fake) Close() error { f.closed = true; return nil }

func stranger(n int, from string) *conn {
	addr := &net.TCPAddr{IP: net.ParseIP(from), Port: 1000 + n%60000}
	return &conn{Conn: &fake{}, node: fmt.Sprint("stranger", n), from: Network(addr), since: time.Now()}
}

// Devices that anybody can make up share a few connections; those that the hub knows have their own.
func TestStrangersDoNotTakeTheRoomOfKnownDevices(t *testing.T) {
	b, err := New(Config{Cluster: "c", MaxClients: 100, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	joined := map[string]bool{}
	b.Guard(func(device string) bool { return strings.HasPrefix(device, "known") || joined[device] })
	var first []*conn
	for n := range 10_100 {
		c := stranger(n, fmt.Sprintf("192.0.2.%d", n%4))
		if b.enter(c) == nil {
			first = append(first, c)
		}
	}
	if n := len(b.conns); n != maxStrangers {
		t.Errorf("%d connections of strangers, want %d", n, maxStrangers)
	}
	for n := range 100 {
		if err := b.enter(&conn{Conn: &fake{}, node: fmt.Sprint("known", n)}); err != nil {
			t.Fatalf("known device %d: %v", n, err)
		}
	}
	if err := b.enter(&conn{Conn: &fake{}, node: "known100"}); err == nil {
		t.Error("more known devices than the limit")
	}
	// One from elsewhere takes the place of the oldest of those who are many.
	if err := b.enter(stranger(20_000, "198.51.100.1")); err != nil {
		t.Errorf("a stranger from elsewhere: %v", err)
	}
	evicted := 0
	for _, c := range first {
		if c.Conn.(*fake).closed {
			evicted++
		}
	}
	if evicted != 1 {
		t.Errorf("%d connections gave way, want 1", evicted)
	}
	// Who has joined needs no stranger's place any more.
	for c := range b.strangers {
		joined[c.node] = true
	}
	if err := b.enter(stranger(30_000, "192.0.2.1")); err != nil {
		t.Errorf("after the others have joined: %v", err)
	}
	if n := len(b.strangers); n != 1 {
		t.Errorf("%d strangers, want 1", n)
	}
}

func TestStrangersPerAddress(t *testing.T) {
	b, err := New(Config{Cluster: "c", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	b.Guard(func(string) bool { return false })
	for n := range 100 {
		err := b.enter(stranger(n, fmt.Sprintf("2001:db8::%x", n)))
		if (err == nil) != (n < maxPerAddress) {
			t.Fatalf("connection %d of one network: %v", n, err)
		}
	}
}

// A device that comes back again and again from another network has left connections behind that nobody has ended yet. Its
// new one takes the place of the one that is silent for longest; those that it uses stay.
func TestADeviceThatMovesAbout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, err := New(Config{Cluster: "c", Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		var conns []*conn
		for range maxPerNode {
			c := &conn{Conn: &fake{}, node: "known"}
			if err := b.enter(c); err != nil {
				t.Fatal(err)
			}
			conns = append(conns, c)
			time.Sleep(time.Millisecond)
		}
		if err := b.enter(&conn{Conn: &fake{}, node: "known"}); err == nil {
			t.Error("more at once than there may be")
		}
		time.Sleep(maxSilence)
		conns[0].touch()
		fresh := &conn{Conn: &fake{}, node: "known"}
		if err := b.enter(fresh); err != nil {
			t.Error(err)
		}
		for k, c := range conns {
			if closed := c.Conn.(*fake).closed; closed != (k == 1) {
				t.Errorf("connection %d: closed %v", k, closed)
			}
		}
		for _, c := range append(conns, fresh) {
			b.leave(c)
		}
		if len(b.devices) != 0 || len(b.conns) != 0 {
			t.Errorf("%d devices, %d connections are left", len(b.devices), len(b.conns))
		}
	})
}

func TestNetwork(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.7:80": "192.0.2.7/32", "[::ffff:192.0.2.7]:80": "192.0.2.7/32", "[2001:db8:1:2:3::4]:80": "2001:db8:1:2::/64", "[fe80::1%eth0]:80": "fe80::/64",
	} {
		if got := Network(net.TCPAddrFromAddrPort(netip.MustParseAddrPort(in))); got.String() != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}
