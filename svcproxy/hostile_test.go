package svcproxy

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"petrel.dev/petrel/internal/contain"
)

// The attacks of docs/security.md on proxy and DNS. neighbour is a client that does nothing wrong, and must notice nothing.
var neighbour = netip.MustParseAddr("127.0.0.9")

// full reports whether attacks run at the size that they were found with (make hostile).
func full() bool { return os.Getenv("PETREL_HOSTILE") != "" }

// askAs asks the DNS from an address of the loopback; nil: no answer in time.
func askAs(t testing.TB, from netip.Addr, proto, name string) *dns.Msg {
	t.Helper()
	m := new(dns.Msg)
	m.SetQuestion(name, dns.TypeA)
	d := &net.Dialer{LocalAddr: &net.UDPAddr{IP: from.AsSlice()}}
	if proto == "tcp" {
		d.LocalAddr = &net.TCPAddr{IP: from.AsSlice()}
	}
	for range 3 { // a packet may be lost in a flood, and resolvers ask again
		c := dns.Client{Net: proto, Timeout: 10 * time.Second, Dialer: d}
		r, _, err := c.Exchange(m, net.JoinHostPort(dnsAddr.String(), "53"))
		if err == nil {
			return r
		}
		t.Logf("%s by %s: %v", name, proto, err)
	}
	return nil
}

// flood sends n questions as fast as it can; name makes each one's name.
func flood(t *testing.T, n int, name func(i int) string) {
	t.Helper()
	c, err := net.Dial("udp", net.JoinHostPort(dnsAddr.String(), "53"))
	must(t, err)
	t.Cleanup(func() { _ = c.Close() })
	for i := range n {
		m := new(dns.Msg)
		m.SetQuestion(name(i), dns.TypeA)
		m.Id = uint16(i)
		b, err := m.Pack()
		must(t, err)
		_, _ = c.Write(b)
		if i%64 == 63 {
			runtime.Gosched() // so that the socket's queue does not lose most of them
		}
	}
}

// slowOutside is a name server that never answers for names under slow., and others at once.
func slowOutside(t *testing.T) netip.AddrPort {
	t.Helper()
	needNamespace(t)
	pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
	must(t, err)
	h := dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) {
		if dns.IsSubDomain("slow.", r.Question[0].Name) {
			return
		}
		m := new(dns.Msg)
		m.SetReply(r)
		rr, _ := dns.NewRR(r.Question[0].Name + " 60 IN A 198.51.100.7")
		m.Answer = []dns.RR{rr}
		_ = w.WriteMsg(m)
	})
	s := &dns.Server{PacketConn: pc, Handler: h}
	up := make(chan struct{})
	s.NotifyStartedFunc = func() { close(up) }
	go func() { _ = s.ActivateAndServe() }()
	<-up
	t.Cleanup(func() { _ = s.Shutdown() })
	return pc.LocalAddr().(*net.UDPAddr).AddrPort()
}

// One pod repeats one name to which upstream is silent: 117,082 goroutines and 615 MiB in 1.8 s, once.
func TestHostileDNSFloodOfOneName(t *testing.T) {
	n := 20000
	if full() {
		n = 166000
	}
	p := start(t, Config{DNSAddr: dnsAddr, Upstream: []netip.AddrPort{slowOutside(t)}})
	apply(t, p, Table{Services: []Service{service("web", "10.43.0.5", web)}})
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	goroutines := runtime.NumGoroutine()
	begin := time.Now()
	flood(t, n, func(int) string { return "one.slow." })
	more := runtime.NumGoroutine() - goroutines
	runtime.GC()
	runtime.ReadMemStats(&after)
	grown := int64(after.HeapInuse+after.StackInuse) - int64(before.HeapInuse+before.StackInuse)
	t.Logf("%d packets in %v: %d more goroutines, %d KiB more memory", n, time.Since(begin), more, grown>>10)
	if more > 50 {
		t.Errorf("%d more goroutines", more)
	}
	if grown > 8<<20 {
		t.Errorf("%d KiB more memory, want at most 8 MiB", grown>>10)
	}
	for _, name := range []string{"web.default.svc.cluster.local.", "www.example.org."} {
		if r := askAs(t, neighbour, "udp", name); r == nil || len(r.Answer) != 1 {
			t.Errorf("the neighbour asks for %s: %v", name, r)
		}
	}
}

// One pod asks for names that take upstream longer than a client waits: for all others every name failed, because there
// were 256 questions under way, and because the server that did not answer them counted as dead.
func TestHostileDNSManySlowNames(t *testing.T) {
	p := start(t, Config{DNSAddr: dnsAddr, Upstream: []netip.AddrPort{slowOutside(t)}, upstreamTimeout: 5 * time.Second}) // what answers does so within it, also on a slow machine
	apply(t, p, Table{})
	eventually(t, "DNS listening", func() bool { return len(p.Problems()) == 0 && p.Stats().Applied > 0 })
	for round := range 3 { // the first fills the list, the later ones come when upstream was silent for its time
		flood(t, 400, func(i int) string { return fmt.Sprintf("n%d-%d.slow.", round, i) })
		for i := range 5 {
			name := fmt.Sprintf("www%d-%d.example.org.", round, i)
			if r := askAs(t, neighbour, "udp", name); r == nil || r.Rcode != dns.RcodeSuccess || len(r.Answer) != 1 {
				t.Errorf("round %d: the neighbour asks for %s: %v", round, name, r)
			}
		}
		if round < 2 {
			eventually(t, "the time-outs of upstream pass", func() bool { return p.dns.forward.unanswered() == 0 })
		}
	}
}

// unanswered returns how many questions are upstream.
func (f *forwarder) unanswered() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.pending)
}

// One pod holds TCP connections to the DNS. That the DNS ends silent ones is not what saves the others: here it never does.
func TestHostileDNSConnections(t *testing.T) {
	startDNSWith(t, Config{DNSAddr: dnsAddr, Upstream: []netip.AddrPort{slowOutside(t)}, upstreamTimeout: 20 * time.Second, dnsSilence: time.Hour})
	before := openFiles(t)
	open := 0
	for range 2 * 128 {
		c, err := net.Dial("tcp", net.JoinHostPort(dnsAddr.String(), "53"))
		if err != nil {
			continue // refused at once
		}
		t.Cleanup(func() { _ = c.Close() })
		open++
	}
	if r := askAs(t, neighbour, "tcp", "www.example.org."); r == nil || len(r.Answer) != 1 {
		t.Errorf("the neighbour asks by TCP: %v", r)
	}
	eventually(t, "one client has at most half of all connections", func() bool { return openFiles(t)-before-open <= 70 })
}

// Large answers to questions of one pod neither fill memory nor push out what others rely on.
func TestHostileDNSCache(t *testing.T) {
	c := newDNSCache(maxCached, maxCachedBytes)
	now := time.Now()
	answer := func(name string, size int) *dns.Msg {
		m := new(dns.Msg)
		m.SetQuestion(name, dns.TypeTXT)
		m.Response = true
		for ; size > 0; size -= 250 {
			m.Answer = append(m.Answer, &dns.TXT{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: 3600},
				Txt: []string{string(bytes.Repeat([]byte{'x'}, 230))}})
		}
		return m
	}
	q := func(name string) question { return question{name: name, qtype: dns.TypeTXT} }
	for i := range 50 {
		c.put(q(fmt.Sprintf("need%d.", i)), answer("need.", 100), neighbour, now)
	}
	pod := netip.MustParseAddr("10.42.0.7")
	for i := range 20000 {
		c.put(q(fmt.Sprintf("bad%d.", i)), answer("bad.", 4000), pod, now)
	}
	c.put(q("huge."), answer("huge.", 60000), pod, now)
	sum := 0
	for q, e := range c.m {
		sum += len(q.name) + len(e.wire)
	}
	if sum > maxCachedBytes || sum != c.bytes {
		t.Errorf("%d bytes cached (counted as %d), want at most %d", sum, c.bytes, maxCachedBytes)
	}
	t.Logf("%d entries, %v", len(c.m), c.by)
	kept := 0
	for i := range 50 {
		if c.get(q(fmt.Sprintf("need%d.", i)), now, false) != nil {
			kept++
		}
	}
	if kept != 50 {
		t.Errorf("%d of the neighbour's 50 answers are left", kept)
	}
	if c.get(q("huge."), now, false) != nil {
		t.Error("an answer of 60 KB is kept")
	}
}

func openFiles(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(entries)
}

// withDescriptors lowers this process's limit of open files until the test ends.
func withDescriptors(t *testing.T, n uint64) {
	t.Helper()
	needNamespace(t)
	var old syscall.Rlimit
	must(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &old))
	low := old
	low.Cur = n
	must(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &low))
	t.Cleanup(func() { must(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &old)) })
}

// One pod opens connections to a Service until the agent can open no file: 345 did, at a limit of 1,024.
func TestHostileConnections(t *testing.T) {
	eventually(t, "sockets of earlier tests, which wait for upstream, are closed", func() bool { return openFiles(t) < 100 })
	withDescriptors(t, 1024)
	p := start(t, Config{})
	apply(t, p, Table{Services: []Service{service("web", "10.43.0.5", web, endpoint(backend(t, "a")))}})
	mine := 0
	for range 300 {
		c, err := net.DialTimeout("tcp", "10.43.0.5:80", time.Minute)
		if err != nil {
			continue // refused at once
		}
		mine++
		t.Cleanup(func() { _ = c.Close() })
	}
	settled, last := 0, -1
	eventually(t, "connections carried or refused", func() bool {
		if n := openFiles(t); n == last {
			settled++
		} else {
			settled, last = 0, n
		}
		return settled > 20
	})
	t.Logf("%d files open, of which %d are the attacker's", last, mine)
	if last > mine+500 {
		t.Errorf("%d descriptors in use by proxy and backend", last-mine)
	}
	f, err := os.Open("/proc/self/status")
	if err != nil {
		t.Errorf("the agent's own work: %v", err)
	} else {
		_ = f.Close()
	}
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: neighbour.AsSlice()}, Timeout: time.Minute}
	c, err := d.DialContext(context.Background(), "tcp", "10.43.0.5:80")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got, err := readName(c); got != "a" {
		t.Errorf("the neighbour: %q, %v", got, err)
	}
}

// One pod starts UDP flows from as many ports as there are, to one Service or to several.
func TestHostileUDPFlows(t *testing.T) {
	p := start(t, Config{})
	to := udpBackend(t, "a")
	var services []Service
	for i := range 5 {
		services = append(services, service(fmt.Sprint("echo", i), fmt.Sprintf("10.43.0.%d", 70+i), echo, endpoint(to)))
	}
	apply(t, p, Table{Services: services})
	attacker := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.IPv4(127, 0, 0, 66)}}
	d := net.Dialer{LocalAddr: &net.UDPAddr{IP: neighbour.AsSlice()}}
	mine, err := d.DialContext(context.Background(), "udp", "10.43.0.70:7")
	must(t, err)
	defer mine.Close()
	if got, err := ask(mine.(*net.UDPConn), "x"); got != "a x" {
		t.Fatal(got, err)
	}
	flowOfMine := func() *udpFlow {
		l := p.listeners[listenKey{UDP, netip.MustParseAddrPort("10.43.0.70:7")}].(*udpListener)
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.flows[mine.LocalAddr().(*net.UDPAddr).AddrPort()]
	}
	before, started := flowOfMine(), p.Stats().UDPFlows
	for i := range 5 * 1200 {
		c, err := attacker.Dial("udp", fmt.Sprintf("10.43.0.%d:7", 70+i/1200))
		must(t, err)
		_, _ = c.Write([]byte("x"))
		_ = c.Close()
		if i%32 == 31 {
			runtime.Gosched()
		}
	}
	eventually(t, "all datagrams are seen", func() bool {
		n := p.Stats().UDPFlows
		time.Sleep(20 * time.Millisecond)
		return n == p.Stats().UDPFlows
	})
	if got, err := ask(mine.(*net.UDPConn), "x"); got != "a x" {
		t.Errorf("the neighbour's flow: %q, %v", got, err)
	}
	if flowOfMine() != before {
		t.Error("the neighbour's flow was cut for the attacker's")
	}
	d.LocalAddr = &net.UDPAddr{IP: net.IPv4(127, 0, 0, 10)}
	late, err := d.DialContext(context.Background(), "udp", "10.43.0.74:7")
	must(t, err)
	defer late.Close()
	if got, err := ask(late.(*net.UDPConn), "x"); got != "a x" {
		t.Errorf("a new client: %q, %v", got, err)
	}
	t.Logf("%d flows started, %d open", p.Stats().UDPFlows-started, p.Stats().UDPActive)
	if n := p.Stats().UDPActive; n > maxFlowsAll*3/4 {
		t.Errorf("the attacker has about all of %d flows", n)
	}
}

// A fault over one packet, connection or table is that one's (M9).
func TestPanicsAreContained(t *testing.T) {
	p := startDNS(t)
	to := backend(t, "a")
	apply(t, p, Table{Services: []Service{service("good", "10.43.0.5", web, endpoint(to)), service("bad", "10.43.0.6", web, endpoint(to))}})
	var tables atomic.Int32
	remove := contain.Inject(func(site, key string) {
		if site == "svcproxy/tcp" && key == "default/bad" || site == "svcproxy/table" && tables.Add(1) == 1 ||
			site == "svcproxy/dns" && tables.Load() == 0 {
			panic("injected")
		}
	})
	defer remove()
	m := new(dns.Msg)
	m.SetQuestion("good.default.svc.cluster.local.", dns.TypeA)
	c := dns.Client{Timeout: 200 * time.Millisecond}
	if _, _, err := c.Exchange(m, net.JoinHostPort(dnsAddr.String(), "53")); err == nil {
		t.Error("the fault was not injected")
	}
	if got, err := hello("10.43.0.6:80"); err == nil {
		t.Errorf("the connection with a fault: %q", got)
	}
	apply(t, p, Table{Services: []Service{service("good", "10.43.0.5", web, endpoint(to))}}) // the first look at it panics
	if got, err := hello("10.43.0.5:80"); got != "a" {
		t.Errorf("another connection: %q, %v", got, err)
	}
	if r := query(t, "udp", "good.default.svc.cluster.local.", dns.TypeA); len(r.Answer) != 1 {
		t.Errorf("the next question: %v", r)
	}
}
