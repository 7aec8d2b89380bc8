package svcproxy

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"
)

var web = Port{Protocol: TCP, Port: 80}

func TestClusterIPSpreadsOverEndpoints(t *testing.T) {
	p := start(t, Config{})
	a, b := backend(t, "a"), backend(t, "b")
	apply(t, p, Table{Services: []Service{service("web", "10.43.0.5", web, endpoint(a), endpoint(b))}})
	seen := map[string]int{}
	for range 10 {
		name, err := hello("10.43.0.5:80")
		must(t, err)
		seen[name]++
	}
	if seen["a"] != 5 || seen["b"] != 5 {
		t.Errorf("round robin went %v", seen)
	}
}

func TestEveryKindOfListener(t *testing.T) {
	p := start(t, Config{})
	a := backend(t, "a")
	s := service("web", "10.43.0.5", Port{Protocol: TCP, Port: 80, NodePort: 30080}, endpoint(a))
	s.ExternalIPs = []netip.Addr{netip.MustParseAddr("127.0.99.1")}
	s.LoadBalancer = true
	apply(t, p, Table{Services: []Service{s}, HostPorts: []HostPort{
		{Port: 8080, Protocol: TCP, Target: a},
		{HostIP: netip.MustParseAddr("127.0.0.1"), Port: 8081, Protocol: TCP, Target: a},
	}})
	for _, addr := range []string{"10.43.0.5:80", "192.168.1.7:30080", "127.0.0.1:30080", "192.168.1.7:80", "127.0.99.1:80",
		"192.168.1.7:8080", "127.0.0.1:8080", "127.0.0.1:8081"} {
		if name, err := hello(addr); err != nil || name != "a" {
			t.Errorf("%s: %q, %v", addr, name, err)
		}
	}
	for _, addr := range []string{"192.168.1.7:8081", "127.0.0.1:80", "10.43.0.5:30080", "10.43.0.6:80"} {
		if _, err := hello(addr); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%s should be closed: %v", addr, err)
		}
	}
}

func TestNoEndpointsRefusesAtOnce(t *testing.T) {
	p := start(t, Config{})
	a := backend(t, "a")
	notReady := endpoint(a)
	notReady.Ready, notReady.Serving = false, false
	apply(t, p, Table{Services: []Service{service("web", "10.43.0.5", web, notReady)}})
	if _, err := hello("10.43.0.5:80"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("want connection refused, got %v", err)
	}
	apply(t, p, Table{Services: []Service{service("web", "10.43.0.5", web, endpoint(a))}})
	if _, err := hello("10.43.0.5:80"); err != nil {
		t.Errorf("after the endpoint got ready: %v", err)
	}
	apply(t, p, Table{})
	if _, err := hello("10.43.0.5:80"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("after the Service went: %v", err)
	}
}

// Connections outlive their endpoint's membership, and their Service.
func TestConnectionsDrain(t *testing.T) {
	p := start(t, Config{})
	a, b := backend(t, "a"), backend(t, "b")
	apply(t, p, Table{Services: []Service{service("web", "10.43.0.5", web, endpoint(a))}})
	c, err := net.Dial("tcp", "10.43.0.5:80")
	must(t, err)
	defer c.Close()
	if name, err := readName(c); name != "a" || err != nil {
		t.Fatal(name, err)
	}
	for _, table := range []Table{{Services: []Service{service("web", "10.43.0.5", web, endpoint(b))}}, {}} {
		apply(t, p, table)
		_, err = io.WriteString(c, "still here\n")
		must(t, err)
		if echo, err := readName(c); echo != "still here" || err != nil {
			t.Fatalf("connection was cut: %q, %v", echo, err)
		}
	}
}

func TestHalfCloseAndLargeTransfer(t *testing.T) {
	p := start(t, Config{})
	apply(t, p, Table{Services: []Service{service("web", "10.43.0.5", web, endpoint(backend(t, "a")))}})
	c, err := net.Dial("tcp", "10.43.0.5:80")
	must(t, err)
	defer c.Close()
	_, err = readName(c)
	must(t, err)
	sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<18) // 4 MiB
	go func() {
		_, _ = c.Write(sent)
		_ = c.(*net.TCPConn).CloseWrite()
	}()
	_ = c.SetReadDeadline(time.Now().Add(time.Minute))
	got, err := io.ReadAll(c)
	must(t, err)
	if !bytes.Equal(got, sent) {
		t.Errorf("sent %d bytes, got back %d, or others", len(sent), len(got))
	}
	eventually(t, "connection forgotten", func() bool { return p.Stats().TCPActive == 0 })
	if got := p.Stats().TCPBytes; got != uint64(2*len(sent)+2) {
		t.Errorf("bytes counted: %d", got)
	}
}

func TestDeadEndpointIsPassedOver(t *testing.T) {
	p := start(t, Config{})
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	must(t, err)
	dead := l.Addr().(*net.TCPAddr).AddrPort()
	_ = l.Close()
	a := backend(t, "a")
	apply(t, p, Table{Services: []Service{service("web", "10.43.0.5", web, endpoint(dead), endpoint(a))}})
	for range 6 {
		if name, err := hello("10.43.0.5:80"); err != nil || name != "a" {
			t.Fatalf("%q, %v", name, err)
		}
	}
	if n := p.Stats().EndpointErrors; n != 1 {
		t.Errorf("the dead endpoint was tried %d times, want once (it is suspect afterwards)", n)
	}
	apply(t, p, Table{Services: []Service{service("web", "10.43.0.5", web, endpoint(dead))}})
	if _, err := hello("10.43.0.5:80"); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("all endpoints dead: want a reset, got %v", err)
	}
}

// A server that breaks off in the middle must not look like one that finished.
func TestResetIsPassedOn(t *testing.T) {
	p := start(t, Config{})
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	arrived := make(chan struct{})
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		_, _ = io.WriteString(c, "half of the file\n")
		<-arrived // a reset overtakes data
		_ = c.(*net.TCPConn).SetLinger(0)
		_ = c.Close()
	}()
	apply(t, p, Table{Services: []Service{service("web", "10.43.0.5", web, endpoint(l.Addr().(*net.TCPAddr).AddrPort()))}})
	c, err := net.Dial("tcp", "10.43.0.5:80")
	must(t, err)
	defer c.Close()
	_, err = readName(c)
	close(arrived)
	must(t, err)
	if _, err := readName(c); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("want a reset, got %v", err)
	}
}

func TestPortInUseIsReportedAndRetried(t *testing.T) {
	p := start(t, Config{})
	a := backend(t, "a")
	squatter, err := net.Listen("tcp4", "192.168.1.7:30081")
	must(t, err)
	s := service("web", "10.43.0.5", Port{Protocol: TCP, Port: 80, NodePort: 30081}, endpoint(a))
	apply(t, p, Table{Services: []Service{s}})
	if name, err := hello("10.43.0.5:80"); err != nil || name != "a" {
		t.Errorf("the other listeners: %q, %v", name, err)
	}
	ps := p.Problems()
	if len(ps) != 1 || ps[0].Listener != "TCP 192.168.1.7:30081" || ps[0].Service != "default/web" || !strings.Contains(ps[0].Reason, "another program") {
		t.Fatalf("problems: %+v", ps)
	}
	_ = squatter.Close()
	eventually(t, "problem over without another Apply", func() bool { return len(p.Problems()) == 0 })
	if name, err := hello("192.168.1.7:30081"); err != nil || name != "a" {
		t.Errorf("%q, %v", name, err)
	}
}

func TestClientIPAffinity(t *testing.T) {
	p := start(t, Config{})
	a, b, c := backend(t, "a"), backend(t, "b"), backend(t, "c")
	s := service("web", "10.43.0.5", Port{Protocol: TCP, Port: 80, NodePort: 30080}, endpoint(a), endpoint(b), endpoint(c))
	s.AffinitySeconds = 60
	apply(t, p, Table{Services: []Service{s}})
	// A client that connects to a ClusterIP from this node has that address as its own, so use one source address.
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(192, 168, 1, 7)}}
	var first string
	for i := range 8 {
		conn, err := d.Dial("tcp", []string{"10.43.0.5:80", "192.168.1.7:30080"}[i%2])
		must(t, err)
		name, err := readName(conn)
		must(t, err)
		_ = conn.Close()
		if first == "" {
			first = name
		}
		if name != first {
			t.Fatalf("connection %d went to %s, the first to %s", i, name, first)
		}
	}
}
