package svcproxy

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

var dnsAddr = netip.MustParseAddr("10.43.0.10")

// outside is a name server of the world, on UDP and TCP.
type outside struct {
	addr   netip.AddrPort
	asked  atomic.Int32
	silent atomic.Bool
	noTCP  atomic.Bool
}

func newOutside(t *testing.T) *outside {
	t.Helper()
	needNamespace(t)
	o := &outside{}
	pc, l := bothPorts(t)
	o.addr = pc.LocalAddr().(*net.UDPAddr).AddrPort()
	h := dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) {
		if r.Question[0].Name != "." { // a probe
			o.asked.Add(1)
		}
		if o.noTCP.Load() && w.RemoteAddr().Network() == "tcp" {
			_ = w.Close()
			return
		}
		if o.silent.Load() {
			return
		}
		m := new(dns.Msg)
		m.SetReply(r)
		switch name := r.Question[0].Name; {
		case strings.HasPrefix(name, "big."):
			for i := range 100 {
				rr, _ := dns.NewRR(fmt.Sprintf("%s 60 IN A 198.51.100.%d", name, i))
				m.Answer = append(m.Answer, rr)
			}
		case strings.HasPrefix(name, "missing."):
			m.Rcode = dns.RcodeNameError
			rr, _ := dns.NewRR("example.org. 60 IN SOA ns.example.org. x.example.org. 1 1 1 1 20")
			m.Ns = []dns.RR{rr}
		default:
			rr, _ := dns.NewRR(name + " 60 IN A 198.51.100.7")
			m.Answer = []dns.RR{rr}
		}
		if w.RemoteAddr().Network() == "udp" {
			m.Truncate(dns.MinMsgSize)
		}
		_ = w.WriteMsg(m)
	})
	for _, s := range []*dns.Server{{PacketConn: pc, Handler: h}, {Listener: l, Handler: h}} {
		up := make(chan struct{})
		s.NotifyStartedFunc = func() { close(up) }
		go func() { _ = s.ActivateAndServe() }()
		<-up
		t.Cleanup(func() { _ = s.Shutdown() })
	}
	return o
}

// bothPorts listens at one port by UDP and TCP. A port that the kernel finds for the one may be taken for the other.
func bothPorts(t *testing.T) (net.PacketConn, net.Listener) {
	t.Helper()
	for {
		pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
		must(t, err)
		if l, err := net.Listen("tcp4", pc.LocalAddr().String()); err == nil {
			return pc, l
		}
		must(t, pc.Close())
	}
}

func query(t testing.TB, proto, name string, qtype uint16) *dns.Msg {
	t.Helper()
	m := new(dns.Msg)
	m.SetQuestion(name, qtype)
	c := dns.Client{Net: proto, Timeout: time.Minute}
	r, _, err := c.Exchange(m, net.JoinHostPort(dnsAddr.String(), "53"))
	if err != nil {
		t.Fatalf("%s %s: %v", name, proto, err)
	}
	return r
}

// startDNS starts a proxy with a DNS server that waits for its upstream for longer than a busy machine may need.
func startDNS(t testing.TB, upstream ...netip.AddrPort) *Proxy {
	t.Helper()
	return startDNSWith(t, Config{DNSAddr: dnsAddr, Upstream: upstream, upstreamTimeout: 20 * time.Second})
}

func startDNSWith(t testing.TB, cfg Config) *Proxy {
	t.Helper()
	p := start(t, cfg)
	eventually(t, "DNS listening", func() bool {
		c, err := net.Dial("tcp", net.JoinHostPort(dnsAddr.String(), "53"))
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
	return p
}

func TestDNSAnswersForClusterAndWorld(t *testing.T) {
	o := newOutside(t)
	p := startDNS(t, o.addr)
	if r := query(t, "udp", "web.default.svc.cluster.local.", dns.TypeA); r.Rcode != dns.RcodeServerFailure {
		t.Errorf("before the first table a cluster name must not be denied: %v", dns.RcodeToString[r.Rcode])
	}
	apply(t, p, Table{Services: []Service{
		service("web", "10.43.0.5", web),
		service("kube-dns", dnsAddr.String(), Port{Name: "dns", Protocol: UDP, Port: 53}, endpoint(netip.MustParseAddrPort("127.0.0.1:9"))),
		{Namespace: "default", Name: "far", ExternalName: "www.example.org"},
		{Namespace: "default", Name: "near", ExternalName: "web.default.svc.cluster.local"},
		{Namespace: "default", Name: "loop", ExternalName: "loop.default.svc.cluster.local"},
	}})
	for _, proto := range []string{"udp", "tcp"} {
		for name, want := range map[string]string{
			"Web.default.svc.cluster.local.":  "10.43.0.5",
			"near.default.svc.cluster.local.": "10.43.0.5",
			"far.default.svc.cluster.local.":  "198.51.100.7",
			"www.example.org.":                "198.51.100.7",
		} {
			r := query(t, proto, name, dns.TypeA)
			if len(r.Answer) == 0 {
				t.Errorf("%s %s: no answer: %v", name, proto, r)
				continue
			}
			a, ok := r.Answer[len(r.Answer)-1].(*dns.A)
			if !ok || a.A.String() != want || r.Answer[0].Header().Name != name {
				t.Errorf("%s %s: %v", name, proto, r.Answer)
			}
		}
	}
	query(t, "udp", "loop.default.svc.cluster.local.", dns.TypeA)
	if r := query(t, "udp", "nope.default.svc.cluster.local.", dns.TypeA); r.Rcode != dns.RcodeNameError || len(r.Ns) != 1 || !r.Authoritative {
		t.Errorf("denial: %v", r)
	}
	if ps := p.Problems(); len(ps) != 0 {
		t.Errorf("problems: %+v", ps)
	}
}

func TestDNSCachesAndCountsDown(t *testing.T) {
	o := newOutside(t)
	startDNS(t, o.addr)
	for range 5 {
		query(t, "udp", "www.example.org.", dns.TypeA)
		query(t, "udp", "WWW.example.org.", dns.TypeA)
		if r := query(t, "udp", "missing.example.org.", dns.TypeA); r.Rcode != dns.RcodeNameError {
			t.Fatal(r)
		}
	}
	if n := o.asked.Load(); n != 2 {
		t.Errorf("upstream was asked %d times for two names", n)
	}
}

func TestDNSLargeAnswerGoesOverTCP(t *testing.T) {
	o := newOutside(t)
	startDNS(t, o.addr)
	r := query(t, "udp", "big.example.org.", dns.TypeA)
	r.Compress = true // as it came
	if !r.Truncated || r.Len() > dns.MinMsgSize {
		t.Errorf("UDP without EDNS: truncated %v, %d bytes", r.Truncated, r.Len())
	}
	if r := query(t, "tcp", "big.example.org.", dns.TypeA); r.Truncated || len(r.Answer) != 100 {
		t.Errorf("TCP: truncated %v, %d records", r.Truncated, len(r.Answer))
	}
}

// A firewall that lets DNS through by UDP only costs the rest of a large answer, not the name server.
func TestDNSWithoutTCPUpstream(t *testing.T) {
	o := newOutside(t)
	o.noTCP.Store(true)
	p := startDNS(t, o.addr)
	if r := query(t, "udp", "big.example.org.", dns.TypeA); r.Rcode != dns.RcodeSuccess || len(r.Answer) == 0 || !r.Truncated {
		t.Errorf("%d records, truncated %v, %s", len(r.Answer), r.Truncated, dns.RcodeToString[r.Rcode])
	}
	if p.dns.forward.rests(o.addr) {
		t.Error("the server counts as silent")
	}
}

// Without a link: cluster names work, known outside names still resolve, others fail and do not pile up.
func TestDNSOffline(t *testing.T) {
	o := newOutside(t)
	p := startDNSWith(t, Config{DNSAddr: dnsAddr, Upstream: []netip.AddrPort{o.addr}, upstreamTimeout: 300 * time.Millisecond})
	apply(t, p, Table{Services: []Service{service("web", "10.43.0.5", web)}})
	eventually(t, "a name is known", func() bool { return len(query(t, "udp", "www.example.org.", dns.TypeA).Answer) == 1 })
	p.dns.forward.cache.age(2 * time.Hour) // its TTL is over
	o.silent.Store(true)

	r := query(t, "udp", "www.example.org.", dns.TypeA)
	if len(r.Answer) != 1 || r.Answer[0].Header().Ttl != staleTTL {
		t.Errorf("a name that was known before: %v", r)
	}
	eventually(t, "the server counts as silent", func() bool { return p.dns.forward.rests(o.addr) })
	eventually(t, "a probe that outlasts the other questions", func() bool { return oneProbe(t, o) })
	if r := query(t, "udp", "web.default.svc.cluster.local.", dns.TypeA); len(r.Answer) != 1 {
		t.Errorf("cluster name while offline: %v", r)
	}
	o.silent.Store(false)
	eventually(t, "back online", func() bool { return len(query(t, "udp", "back.example.org.", dns.TypeA).Answer) == 1 })
}

// oneProbe asks a silent server much: one question is let through to see whether the server is back, the others are not. It returns
// false when that one had ended before the others were asked, after which another may go through: this machine was too slow.
func oneProbe(t *testing.T, o *outside) bool {
	t.Helper()
	asked := o.asked.Load()
	first := make(chan *dns.Msg, 1)
	go func() { first <- query(t, "udp", "probe.example.org.", dns.TypeA) }()
	eventually(t, "probe sent", func() bool { return o.asked.Load() > asked })
	for i := range 20 {
		if r := query(t, "udp", fmt.Sprintf("host%d.example.org.", i), dns.TypeA); r.Rcode != dns.RcodeServerFailure {
			t.Errorf("outside name while offline: %v", r)
		}
	}
	n, inTime := o.asked.Load(), len(first) == 0
	if r := <-first; r.Rcode != dns.RcodeServerFailure {
		t.Errorf("probe: %v", r)
	}
	if inTime && n != asked+1 {
		t.Errorf("a silent server was asked %d more times", n-asked)
	}
	return inTime
}

func (f *forwarder) rests(s netip.AddrPort) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.health.rests(s, time.Now())
}

// age makes all entries older.
func (c *dnsCache) age(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for q, e := range c.m {
		e.stored, e.expires = e.stored.Add(-d), e.expires.Add(-d)
		c.m[q] = e
	}
}

func TestDNSPortTakenIsReportedAndRetried(t *testing.T) {
	needNamespace(t)
	squatter, err := net.ListenPacket("udp4", "0.0.0.0:53")
	must(t, err)
	p := start(t, Config{DNSAddr: dnsAddr})
	eventually(t, "problem reported", func() bool { return len(p.Problems()) == 1 })
	if pr := p.Problems()[0]; pr.Listener != "UDP 10.43.0.10:53" || pr.Service != "cluster DNS" {
		t.Errorf("%+v", pr)
	}
	_ = squatter.Close()
	eventually(t, "problem over", func() bool { return len(p.Problems()) == 0 })
}

func TestUpstreams(t *testing.T) {
	self := netip.MustParseAddr("10.43.0.10")
	for _, c := range []struct{ name, main, uplinks, want string }{
		{"plain", "nameserver 192.168.1.1\nnameserver 9.9.9.9\n", "", "192.168.1.1:53 9.9.9.9:53"},
		{"comments, options, twice, garbage", "# x\noptions ndots:5\nsearch lan\nnameserver 192.168.1.1 \nnameserver\nnameserver x\nnameserver 192.168.1.1\n", "", "192.168.1.1:53"},
		{"ourselves", "nameserver 10.43.0.10\nnameserver 192.168.1.1", "", "192.168.1.1:53"},
		{"only ourselves", "nameserver 10.43.0.10", "", ""},
		{"stub with uplinks", "nameserver 127.0.0.53", "nameserver 192.168.1.1\nnameserver 10.43.0.10", "192.168.1.1:53"},
		{"stub without uplinks", "nameserver 127.0.0.53", "", "127.0.0.53:53"},
		{"stub whose uplink is us", "nameserver 127.0.0.53", "nameserver 10.43.0.10", "127.0.0.53:53"},
		{"dnsmasq on the host", "nameserver 127.0.0.1", "nameserver 1.1.1.1", "127.0.0.1:53"},
		{"IPv6 with zone", "nameserver fe80::1%eth0\nnameserver 2001:db8::1", "", "[fe80::1%eth0]:53 [2001:db8::1]:53"},
		{"nothing", "", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			for _, a := range upstreams([]byte(c.main), []byte(c.uplinks), self) {
				got = append(got, a.String())
			}
			if s := strings.Join(got, " "); s != c.want {
				t.Errorf("got %q, want %q", s, c.want)
			}
		})
	}
}

func TestResolvConfIsReadAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	must(t, os.WriteFile(path, []byte("nameserver 192.0.2.1\n"), 0o644))
	l := newServerList(Config{ResolvConf: path})
	l.uplinks = path + ".none"
	now := time.Now()
	if got := l.current(now); len(got) != 1 || got[0].Addr().String() != "192.0.2.1" {
		t.Fatal(got)
	}
	must(t, os.WriteFile(path, []byte("nameserver 192.0.2.22\n"), 0o644))
	if got := l.current(now.Add(time.Second)); got[0].Addr().String() != "192.0.2.1" {
		t.Error("read at every question")
	}
	if got := l.current(now.Add(recheck + time.Second)); got[0].Addr().String() != "192.0.2.22" {
		t.Errorf("change not seen: %v", got)
	}
}
