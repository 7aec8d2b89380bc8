package svcproxy

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// sink is a TCP server that reads all and says nothing, or, asked with one byte, answers with one.
func sink(b *testing.B, pingPong bool) netip.AddrPort {
	b.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	must(b, err)
	b.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				if pingPong {
					var one [1]byte
					for {
						if _, err := io.ReadFull(c, one[:]); err != nil {
							return
						}
						_, _ = c.Write(one[:])
					}
				}
				_, _ = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{c}, make([]byte, 256<<10))
			}()
		}
	}()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// both runs a benchmark directly against a server and through the proxy.
func both(b *testing.B, pingPong bool, f func(b *testing.B, addr string)) {
	needNamespace(b)
	to := sink(b, pingPong)
	p := start(b, Config{})
	apply(b, p, Table{Services: []Service{service("web", "10.43.0.5", web, endpoint(to))}})
	b.Run("direct", func(b *testing.B) { f(b, to.String()) })
	b.Run("proxy", func(b *testing.B) { f(b, "10.43.0.5:80") })
}

func BenchmarkThroughput(b *testing.B) {
	both(b, false, func(b *testing.B, addr string) {
		c, err := net.Dial("tcp", addr)
		must(b, err)
		defer c.Close()
		block := make([]byte, 256<<10)
		b.SetBytes(int64(len(block)))
		for b.Loop() {
			if _, err := c.Write(block); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkConnection(b *testing.B) {
	both(b, true, func(b *testing.B, addr string) {
		for b.Loop() {
			c, err := net.Dial("tcp", addr)
			must(b, err)
			pingPong(b, c)
			_ = c.(*net.TCPConn).SetLinger(0) // no port in TIME_WAIT
			_ = c.Close()
		}
	})
}

func BenchmarkRoundTrip(b *testing.B) {
	both(b, true, func(b *testing.B, addr string) {
		c, err := net.Dial("tcp", addr)
		must(b, err)
		defer c.Close()
		for b.Loop() {
			pingPong(b, c)
		}
	})
}

func pingPong(b *testing.B, c net.Conn) {
	var one [1]byte
	if _, err := c.Write(one[:]); err != nil {
		b.Fatal(err)
	}
	if _, err := io.ReadFull(c, one[:]); err != nil {
		b.Fatal(err)
	}
}

func BenchmarkUDP(b *testing.B) {
	needNamespace(b)
	to := udpBackend(b, "a")
	p := start(b, Config{})
	apply(b, p, Table{Services: []Service{service("echo", "10.43.0.7", echo, endpoint(to))}})
	for name, addr := range map[string]string{"direct": to.String(), "proxy": "10.43.0.7:7"} {
		b.Run(name, func(b *testing.B) {
			c := udpClient(b, addr)
			for b.Loop() {
				if _, err := ask(c, "x"); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkDNSClusterName(b *testing.B) {
	p := startDNS(b)
	apply(b, p, largeTable(1000))
	c, err := dns.Dial("udp", "10.43.0.10:53")
	must(b, err)
	m := new(dns.Msg)
	m.SetQuestion("svc-500.default.svc.cluster.local.", dns.TypeA)
	for b.Loop() {
		must(b, c.WriteMsg(m))
		r, err := c.ReadMsg()
		must(b, err)
		if len(r.Answer) != 1 {
			b.Fatal(r)
		}
	}
}

// BenchmarkApply is one changed endpoint in a cluster of 1,000 Services.
func BenchmarkApply(b *testing.B) {
	p := start(b, Config{NodeAddrs: func() []netip.Addr { return nil }})
	table := largeTable(1000)
	apply(b, p, table)
	for i := 0; b.Loop(); i++ {
		table.Services[7].Endpoints[0].Addr = netip.AddrFrom4([4]byte{10, 42, 9, byte(i)})
		before := p.Stats().Applied
		p.Apply(table)
		for p.Stats().Applied == before {
			runtime.Gosched()
		}
	}
}

func largeTable(n int) Table {
	var t Table
	for i := range n {
		s := service(fmt.Sprintf("svc-%d", i), fmt.Sprintf("10.43.%d.%d", 1+i/250, 1+i%250), Port{Name: "http", Protocol: TCP, Port: 80})
		for j := range 3 {
			s.Endpoints = append(s.Endpoints, Endpoint{Addr: netip.AddrFrom4([4]byte{10, 42, byte(i / 250), byte(j + 2)}),
				Ports: map[string]uint16{"http": 8080}, Ready: true, Node: "node"})
		}
		t.Services = append(t.Services, s)
	}
	return t
}

// A thousand Services and the DNS fit the agent's budget, and once in force they cost nothing more.
func TestMemoryAndIdleness(t *testing.T) {
	needNamespace(t)
	runtime.GC()
	before := anonymous(t)
	p := start(t, Config{DNSAddr: dnsAddr})
	apply(t, p, largeTable(1000))
	if n := p.Stats().Listeners; n != 1000 {
		t.Fatalf("%d listeners, problems %v", n, p.Problems())
	}
	runtime.GC()
	used := anonymous(t) - before
	t.Logf("1,000 Services with 3,000 endpoints and DNS: %.1f MiB anonymous", float64(used)/1024)
	if used > 16<<10 {
		t.Errorf("1,000 Services take %d KiB", used)
	}
	start, wakes := cpuTime(t), voluntarySwitches(t)
	time.Sleep(2 * time.Second)
	cpu := cpuTime(t) - start
	t.Logf("idle for 2 s: %v CPU, %d wake-ups of the main thread", cpu, voluntarySwitches(t)-wakes)
	if cpu > 50*time.Millisecond {
		t.Errorf("an idle proxy used %v of CPU time in 2 s", cpu)
	}
}

// anonymous is this process's anonymous memory in KiB.
func anonymous(t *testing.T) int {
	t.Helper()
	return statusField(t, "RssAnon:")
}

func voluntarySwitches(t *testing.T) int { return statusField(t, "voluntary_ctxt_switches:") }

func statusField(t *testing.T, field string) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/status")
	must(t, err)
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, field); ok {
			var n int
			_, err := fmt.Sscan(rest, &n)
			must(t, err)
			return n
		}
	}
	t.Fatalf("no %s in /proc/self/status", field)
	return 0
}

func cpuTime(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	must(t, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
