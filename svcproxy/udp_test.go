package svcproxy

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"
)

var echo = Port{Protocol: UDP, Port: 7}

func udpClient(t testing.TB, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("udp", addr)
	must(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// ask sends a datagram and returns the answer.
func ask(c net.Conn, data string) (string, error) {
	if _, err := c.Write([]byte(data)); err != nil {
		return "", err
	}
	_ = c.SetReadDeadline(time.Now().Add(time.Minute))
	b := make([]byte, 65536)
	n, err := c.Read(b)
	return string(b[:n]), err
}

func TestUDPFlows(t *testing.T) {
	p := start(t, Config{})
	a, b := udpBackend(t, "a"), udpBackend(t, "b")
	apply(t, p, Table{Services: []Service{service("echo", "10.43.0.7", echo, endpoint(a), endpoint(b))}})
	one, two := udpClient(t, "10.43.0.7:7"), udpClient(t, "10.43.0.7:7")
	first, err := ask(one, "x")
	must(t, err)
	other, err := ask(two, "x")
	must(t, err)
	if first == other {
		t.Errorf("two clients, two endpoints, but both went to %q", first)
	}
	for range 5 {
		if again, err := ask(one, "x"); err != nil || again != first {
			t.Errorf("a flow changed its endpoint: %q, %v", again, err)
		}
	}
	large := strings.Repeat("y", 60000)
	if got, err := ask(one, large); err != nil || got[2:] != large {
		t.Errorf("large datagram: %d bytes came back, %v", len(got), err)
	}
	if s := p.Stats(); s.UDPActive != 2 || s.UDPFlows != 2 {
		t.Errorf("%+v", s)
	}
}

func TestUDPFlowToRemovedEndpointMoves(t *testing.T) {
	p := start(t, Config{})
	a, b := udpBackend(t, "a"), udpBackend(t, "b")
	apply(t, p, Table{Services: []Service{service("echo", "10.43.0.7", echo, endpoint(a))}})
	c := udpClient(t, "10.43.0.7:7")
	if got, err := ask(c, "x"); got != "a x" {
		t.Fatal(got, err)
	}
	apply(t, p, Table{Services: []Service{service("echo", "10.43.0.7", echo, endpoint(b))}})
	if got, err := ask(c, "x"); got != "b x" {
		t.Errorf("%q, %v", got, err)
	}
	apply(t, p, Table{})
	if _, err := ask(c, "x"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("the Service is gone: want refused, got %v", err)
	}
	if n := p.Stats().UDPActive; n != 0 {
		t.Errorf("%d flows left", n)
	}
}

func TestUDPRefusingEndpointIsPassedOver(t *testing.T) {
	p := start(t, Config{})
	gone, err := net.ListenPacket("udp4", "127.0.0.1:0")
	must(t, err)
	dead := gone.LocalAddr().(*net.UDPAddr).AddrPort()
	_ = gone.Close()
	apply(t, p, Table{Services: []Service{service("echo", "10.43.0.7", echo, endpoint(dead), endpoint(udpBackend(t, "a")))}})
	c := udpClient(t, "10.43.0.7:7")
	eventually(t, "an answer, as clients that send again get", func() bool {
		_, _ = c.Write([]byte("x"))
		_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		b := make([]byte, 100)
		n, err := c.Read(b)
		return err == nil && string(b[:n]) == "a x"
	})
}

// A flood of clients costs old flows, not memory.
func TestUDPFlowsAreBounded(t *testing.T) {
	p := start(t, Config{})
	apply(t, p, Table{Services: []Service{service("echo", "10.43.0.7", echo, endpoint(udpBackend(t, "a")))}})
	for range maxFlows + 200 {
		c, err := net.Dial("udp", "10.43.0.7:7")
		must(t, err)
		if _, err := ask(c, "x"); err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
	}
	s := p.Stats()
	if s.UDPActive != maxFlows || s.UDPFlows <= maxFlows {
		t.Errorf("flows: %d of %d started", s.UDPActive, s.UDPFlows)
	}
}

// An idle flow ends by itself; one that talks stays longer.
func TestUDPIdle(t *testing.T) {
	f := &udpFlow{}
	if f.idle() != udpShort {
		t.Error("a new flow")
	}
	f.up.Store(1)
	f.down.Store(1)
	if f.idle() != udpShort {
		t.Error("one question, one answer")
	}
	f.up.Store(2)
	if f.idle() != udpLong {
		t.Error("a talk")
	}

	p := start(t, Config{})
	apply(t, p, Table{Services: []Service{service("echo", "10.43.0.7", echo, endpoint(udpBackend(t, "a")))}})
	if _, err := ask(udpClient(t, "10.43.0.7:7"), "x"); err != nil {
		t.Fatal(err)
	}
	l := p.listeners[listenKey{UDP, netip.MustParseAddrPort("10.43.0.7:7")}].(*udpListener)
	l.mu.Lock()
	for _, f := range l.flows {
		f.last.Store(time.Now().Add(-udpLong).UnixNano())
		_ = f.c.SetReadDeadline(time.Now()) // as its timer would
	}
	l.mu.Unlock()
	eventually(t, "idle flow forgotten", func() bool { return p.Stats().UDPActive == 0 })
}
