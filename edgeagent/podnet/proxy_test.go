package podnet

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"petrel.dev/petrel/internal/wire"
	"petrel.dev/petrel/svcproxy"
)

// proxyCommand makes the test binary a process that only runs svcproxy, in the namespace that it was started in: a table
// on each line of stdin, "ok" when it is in force.
const proxyCommand = "svcproxy-child"

// socketsLine begins a line of the child that says which sockets it has open; its parent has the Network.
const socketsLine = "sockets "

func runProxy() {
	p := svcproxy.New(svcproxy.Config{Node: os.Getenv("NODE"), ServiceCIDRs: prefixes("10.43.0.0/16"),
		DNSAddr: netip.MustParseAddr("10.43.0.10"), ResolvConf: "/dev/null",
		Sockets: func(open []svcproxy.Socket) error {
			b, err := json.Marshal(open)
			fmt.Println(socketsLine + string(b))
			return err
		}})
	go func() { _ = p.Run(context.Background()) }()
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		var t svcproxy.Table
		if err := json.Unmarshal(in.Bytes(), &t); err != nil {
			fmt.Println(err)
			return
		}
		before := p.Stats().Applied
		p.Apply(t)
		for p.Stats().Applied == before {
			time.Sleep(time.Millisecond)
		}
		fmt.Println("ok", p.Problems())
	}
}

// proxy starts svcproxy on a machine and returns its Apply.
func (m *machine) proxy(name string) func(svcproxy.Table) {
	t := m.t
	t.Helper()
	cmd := exec.Command("/proc/self/exe", proxyCommand)
	cmd.Env = append(os.Environ(), "NODE="+name)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	must(t, err)
	stdout, err := cmd.StdoutPipe()
	must(t, err)
	must(t, inNamespace(int(m.ns), cmd.Start))
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	answers := bufio.NewScanner(stdout)
	answers.Buffer(nil, 1<<20)
	return func(table svcproxy.Table) {
		t.Helper()
		b, err := json.Marshal(table)
		must(t, err)
		_, err = stdin.Write(append(b, '\n'))
		must(t, err)
		for answers.Scan() {
			b, ok := strings.CutPrefix(answers.Text(), socketsLine)
			if !ok {
				break
			}
			var open []svcproxy.Socket
			must(t, json.Unmarshal([]byte(b), &open))
			var all []ServiceSocket
			for _, s := range open {
				all = append(all, ServiceSocket{Addr: s.Addr, UDP: s.Protocol == svcproxy.UDP, Port: s.Port, At: s.At})
			}
			must(t, m.net.SetServiceSockets(all))
		}
		if answers.Text() != "ok []" {
			t.Fatalf("proxy of %s: %q %v", name, answers.Text(), answers.Err())
		}
	}
}

// A small cluster: two machines, a Service with a pod on each; reached by ClusterIP, NodePort and DNS name from pods and
// nodes, as `make demo` does it with containers.
func TestServiceAcrossMachines(t *testing.T) {
	for name, far := range map[string]bool{"same LAN": false, "behind a router": true} {
		t.Run(name, func(t *testing.T) { serviceAcrossMachines(t, far) })
	}
}

func serviceAcrossMachines(t *testing.T, far bool) {
	ctx := t.Context()
	services := prefixes("10.43.0.0/16")
	a, b := newMachine(t, Config{ServiceCIDRs: services}), newMachine(t, Config{ServiceCIDRs: services})
	aAddr, bAddr := "192.168.7.1", "192.168.7.2"
	if far {
		bAddr = "192.168.9.2"
		router(t, a, b, aAddr+"/24", bAddr+"/24")
	} else {
		connect(t, a, b, aAddr+"/24", bAddr+"/24")
	}
	must(t, a.net.Setup(ctx, prefixes("10.42.0.0/24")))
	must(t, b.net.Setup(ctx, prefixes("10.42.1.0/24")))
	peers := []wire.Peer{
		{Name: "a", PodCIDR: []string{"10.42.0.0/24"}, Address: []string{aAddr}},
		{Name: "b", PodCIDR: []string{"10.42.1.0/24"}, Address: []string{bAddr}},
	}
	must(t, a.net.SetRoutes(ctx, peers))
	must(t, b.net.SetRoutes(ctx, peers))
	must(t, b.net.SetRoutes(ctx, peers)) // twice is fine

	pa, err := a.net.Attach(ctx, "pod-a")
	must(t, err)
	pb, err := b.net.Attach(ctx, "pod-b")
	must(t, err)
	serve(t, pa, 8080)
	serve(t, pb, 8080)
	table := svcproxy.Table{Services: []svcproxy.Service{{
		Namespace: "default", Name: "web", ClusterIPs: []netip.Addr{netip.MustParseAddr("10.43.0.5")},
		Ports: []svcproxy.Port{{Protocol: svcproxy.TCP, Port: 80, NodePort: 30080}},
		Endpoints: []svcproxy.Endpoint{
			{Addr: pa.IPs[0], Ports: map[string]uint16{"": 8080}, Ready: true, Node: "a"},
			{Addr: pb.IPs[0], Ports: map[string]uint16{"": 8080}, Ready: true, Node: "b"},
		},
	}}}
	a.proxy("a")(table)
	b.proxy("b")(table)

	for _, from := range []struct {
		name string
		pod  Attachment
	}{{"pod a", pa}, {"pod b", pb}} {
		for _, to := range []string{"10.43.0.5:80", aAddr + ":30080", bAddr + ":30080", pa.IPs[0].String() + ":8080", pb.IPs[0].String() + ":8080"} {
			for range 2 { // both endpoints in turn
				if _, err := getFromPod(t, from.pod, to); err != nil {
					t.Errorf("%s to %s: %v", from.name, to, err)
				}
			}
		}
		ip, err := lookup(t, from.pod, "web.default.svc.cluster.local.")
		if err != nil || ip != "10.43.0.5" {
			t.Errorf("%s: DNS says %q, %v", from.name, ip, err)
		}
	}
	if _, err := get(int(a.ns), "10.43.0.5:80"); err != nil {
		t.Errorf("node a to the ClusterIP: %v", err)
	}
	if _, err := get(int(b.ns), "127.0.0.1:30080"); err != nil {
		t.Errorf("node b to its node port: %v", err)
	}
	if _, err := a.nl.LinkByName(DefaultBridge + ".vx"); (err == nil) != far {
		t.Errorf("VXLAN where it should not be, or none where it should: %v", err)
	}
	if far {
		largeTransfer(t, pa, pb)
	}
}

// largeTransfer moves full-size packets: through a tunnel they must not be lost for being too large.
func largeTransfer(t *testing.T, from, to Attachment) {
	t.Helper()
	var l net.Listener
	in(t, to.NetnsPath, func() (err error) { l, err = net.Listen("tcp", ":9000"); return err })
	defer l.Close()
	got := make(chan int, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			got <- -1
			return
		}
		defer c.Close()
		_ = c.SetReadDeadline(time.Now().Add(time.Minute))
		n, b := 0, make([]byte, 1<<16)
		for {
			m, err := c.Read(b)
			if n += m; err != nil {
				got <- n
				return
			}
		}
	}()
	in(t, from.NetnsPath, func() error {
		c, err := net.DialTimeout("tcp", to.IPs[0].String()+":9000", time.Minute)
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write(make([]byte, 1<<20))
		return err
	})
	if n := <-got; n != 1<<20 {
		t.Errorf("%d of %d bytes went through the VXLAN", n, 1<<20)
	}
}

// router puts a machine that routes between a and b, which then share no LAN.
func router(t *testing.T, a, b *machine, aAddr, bAddr string) {
	t.Helper()
	r := newMachine(t, Config{})
	pa, pb := netip.MustParsePrefix(aAddr), netip.MustParsePrefix(bAddr)
	ra, rb := lastOf(pa), lastOf(pb)
	connect(t, a, r, aAddr, netip.PrefixFrom(ra, pa.Bits()).String())
	connect(t, b, r, bAddr, netip.PrefixFrom(rb, pb.Bits()).String())
	must(t, inNamespace(int(r.ns), func() error { return setSysctl("net/ipv4/ip_forward", "1") }))
	defaultRoute(t, a, ra)
	defaultRoute(t, b, rb)
}

func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().As4()
	b[3] = 254
	return netip.AddrFrom4(b)
}

func lookup(t *testing.T, from Attachment, name string) (ip string, err error) {
	t.Helper()
	m := new(dns.Msg)
	m.SetQuestion(name, dns.TypeA)
	in(t, from.NetnsPath, func() error {
		c, derr := net.DialTimeout("udp", "10.43.0.10:53", time.Minute)
		if derr != nil {
			return derr
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		conn := &dns.Conn{Conn: c}
		if err = conn.WriteMsg(m); err != nil {
			return nil
		}
		var r *dns.Msg
		if r, err = conn.ReadMsg(); err == nil && len(r.Answer) == 1 {
			ip = strings.TrimPrefix(r.Answer[0].String(), r.Answer[0].Header().String())
		}
		return nil
	})
	return ip, err
}
