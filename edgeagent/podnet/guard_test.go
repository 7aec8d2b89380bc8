package podnet

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"petrel.dev/petrel/internal/wire"
	"petrel.dev/petrel/svcproxy"
)

// guarded is a machine with a pod and a Service; its proxy says which sockets it has, as in an agent.
func guarded(t *testing.T) (m *machine, pod Attachment, table svcproxy.Table) {
	t.Helper()
	m = newMachine(t, Config{ServiceCIDRs: prefixes("10.43.0.0/16")})
	must(t, m.net.Setup(t.Context(), prefixes("10.42.0.0/24")))
	pod, err := m.net.Attach(t.Context(), "pod")
	must(t, err)
	serve(t, pod, 8080)
	table = svcproxy.Table{Services: []svcproxy.Service{{
		Namespace: "default", Name: "web", ClusterIPs: []netip.Addr{netip.MustParseAddr("10.43.0.5")},
		Ports:     []svcproxy.Port{{Protocol: svcproxy.TCP, Port: 8022, NodePort: 30022}},
		Endpoints: []svcproxy.Endpoint{{Addr: pod.IPs[0], Ports: map[string]uint16{"": 8080}, Ready: true, Node: "m"}},
	}, {
		Namespace: "default", Name: "empty", ClusterIPs: []netip.Addr{netip.MustParseAddr("10.43.0.6")},
		Ports: []svcproxy.Port{{Protocol: svcproxy.TCP, Port: 8022}},
	}}}
	return m, pod, table
}

// daemon is a program of the node that listens on all of its addresses, and says so.
func daemon(t *testing.T, m *machine, port int) {
	t.Helper()
	must(t, inNamespace(int(m.ns), func() error {
		l, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
		if err != nil {
			return err
		}
		t.Cleanup(func() { _ = l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = c.Read(make([]byte, 100))
				_, _ = c.Write([]byte("HTTP/1.0 200 OK\r\n\r\nthe node's own daemon"))
				_ = c.Close()
			}
		}()
		return nil
	}))
}

// A program of the node that listens on all addresses must not be reached at service addresses, and must not keep a Service
// from being reached (M1).
func TestServiceAddressesDoNotReachTheNodesDaemons(t *testing.T) {
	m, pod, table := guarded(t)
	daemon(t, m, 8022)
	daemon(t, m, 22)
	m.proxy("m")(table)
	for _, from := range []struct {
		name string
		get  func(addr string) (string, error)
	}{
		{"a pod", func(addr string) (string, error) { return getFromPod(t, pod, addr) }},
		{"the node", func(addr string) (string, error) { return get(int(m.ns), addr) }},
	} {
		got, err := from.get("10.43.0.5:8022")
		if err != nil || strings.Contains(got, "daemon") {
			t.Errorf("%s calls the Service whose port a daemon has: %q, %v", from.name, got, err)
		}
		for what, addr := range map[string]string{
			"a Service without endpoints": "10.43.0.6:8022", "another port of a Service": "10.43.0.5:22", "an address of nobody": "10.43.77.77:22"} {
			if got, err := from.get(addr); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("%s calls %s: %q, %v, want refused", from.name, what, got, err)
			}
		}
		if got, err := from.get("10.42.0.1:22"); err != nil || !strings.Contains(got, "daemon") {
			t.Errorf("%s calls the node itself: %q, %v", from.name, got, err)
		}
	}
	if ip, err := lookup(t, pod, "web.default.svc.cluster.local."); err != nil || ip != "10.43.0.5" {
		t.Errorf("DNS: %q, %v", ip, err)
	}
	if p := m.net.Problems(); len(p) != 0 {
		t.Errorf("problems: %v", p)
	}
}

// A neighbour on the LAN with a route to the service network gets nothing from it; node ports are for it (M2).
func TestServiceAddressesDoNotAnswerTheLAN(t *testing.T) {
	m, pod, table := guarded(t)
	lan := newMachine(t, Config{})
	connect(t, m, lan, "192.168.7.1/24", "192.168.7.9/24")
	_, services, _ := net.ParseCIDR("10.43.0.0/16")
	must(t, lan.nl.RouteAdd(&netlink.Route{Dst: services, Gw: net.IPv4(192, 168, 7, 1)}))
	m.proxy("m")(table)
	if got, err := getWithin(3*time.Second, int(lan.ns), "10.43.0.5:8022"); err == nil {
		t.Errorf("the LAN gets %q from a ClusterIP", got)
	}
	must(t, inNamespace(int(lan.ns), func() error {
		c, err := net.Dial("udp", "10.43.0.10:53")
		if err != nil {
			return err
		}
		defer c.Close()
		// www.example.org. A
		_, _ = c.Write([]byte("\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03www\x07example\x03org\x00\x00\x01\x00\x01"))
		_ = c.SetReadDeadline(time.Now().Add(time.Second))
		if n, err := c.Read(make([]byte, 512)); err == nil {
			t.Errorf("the cluster DNS answers the LAN with %d bytes", n)
		}
		return nil
	}))
	if _, err := get(int(lan.ns), "192.168.7.1:30022"); err != nil {
		t.Errorf("the node port: %v", err)
	}
	if _, err := getFromPod(t, pod, "10.43.0.5:8022"); err != nil {
		t.Errorf("a pod: %v", err)
	}
}

// A pod sends router advertisements; NET_RAW is among its capabilities (M3, CVE-2020-10749).
func TestPodsAreNoRouters(t *testing.T) {
	m := newMachine(t, Config{})
	must(t, inNamespace(int(m.ns), func() error { return setSysctl("net/ipv6/conf/default/accept_ra", "1") }))
	must(t, m.net.Setup(t.Context(), prefixes("10.42.0.0/24")))
	pod, err := m.net.Attach(t.Context(), "pod")
	must(t, err)
	sysctl := func(iface, key string) string {
		b, err := os.ReadFile("/proc/sys/net/ipv6/conf/" + iface + "/" + key)
		if err != nil {
			t.Skip("this kernel has no IPv6")
		}
		return strings.TrimSpace(string(b))
	}
	must(t, inNamespace(int(m.ns), func() error {
		for _, iface := range []string{DefaultBridge, vethName("pod")} {
			if ra, off := sysctl(iface, "accept_ra"), sysctl(iface, "disable_ipv6"); ra != "0" || off != "1" {
				t.Errorf("%s: accept_ra=%s disable_ipv6=%s", iface, ra, off)
			}
		}
		return nil
	}))
	in(t, pod.NetnsPath, func() error {
		if ra := sysctl("eth0", "accept_ra"); ra != "0" {
			t.Errorf("another pod may be the pod's router: accept_ra=%s", ra)
		}
		return nil
	})
	links, err := m.nl.AddrList(nil, unix.AF_INET6)
	must(t, err)
	for _, a := range links {
		if a.Label != "lo" && !a.IP.IsLoopback() {
			t.Errorf("IPv6 address %v in an IPv4-only cluster", a)
		}
	}
}

// VXLAN packets of a stranger do not reach pods (M16).
func TestVXLANFromPeersOnly(t *testing.T) {
	ctx := t.Context()
	a, b := newMachine(t, Config{}), newMachine(t, Config{})
	router(t, a, b, "192.168.7.1/24", "192.168.9.2/24")
	must(t, a.net.Setup(ctx, prefixes("10.42.0.0/24")))
	must(t, b.net.Setup(ctx, prefixes("10.42.1.0/24")))
	peer := func(name, cidr, addr string) wire.Peer {
		return wire.Peer{Name: name, PodCIDR: []string{cidr}, Address: []string{addr}}
	}
	pa, err := a.net.Attach(ctx, "pod-a")
	must(t, err)
	pb, err := b.net.Attach(ctx, "pod-b")
	must(t, err)
	serve(t, pb, 8080)
	// b believes a to be a peer at another address, so a is a stranger that sends to b's VXLAN.
	must(t, a.net.SetRoutes(ctx, []wire.Peer{peer("b", "10.42.1.0/24", "192.168.9.2")}))
	must(t, b.net.SetRoutes(ctx, []wire.Peer{peer("a", "10.42.0.0/24", "192.168.7.77")}))
	datagrams := func() (n int) {
		var c net.PacketConn
		in(t, pb.NetnsPath, func() (err error) { c, err = net.ListenPacket("udp", ":9999"); return err })
		defer c.Close()
		in(t, pa.NetnsPath, func() error {
			s, err := net.Dial("udp", pb.IPs[0].String()+":9999")
			if err != nil {
				return err
			}
			defer s.Close()
			for range 5 {
				_, _ = s.Write([]byte("x"))
				time.Sleep(20 * time.Millisecond)
			}
			return nil
		})
		_ = c.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
		for {
			if _, _, err := c.ReadFrom(make([]byte, 10)); err != nil {
				return n
			}
			n++
		}
	}
	if n := datagrams(); n != 0 {
		t.Errorf("%d datagrams of a stranger reached the pod", n)
	}
	must(t, b.net.SetRoutes(ctx, []wire.Peer{peer("a", "10.42.0.0/24", "192.168.7.1")}))
	waitFor(t, "the peer's datagrams reach the pod", func() bool { return datagrams() > 0 })
}

// The set of sockets follows the proxy, also beyond what one message holds, and survives a flushed ruleset.
func TestGuardFollowsSockets(t *testing.T) {
	m, pod, _ := guarded(t)
	_ = pod
	var all []ServiceSocket
	for i := range 5000 {
		all = append(all, ServiceSocket{Addr: netip.AddrFrom4([4]byte{10, 43, byte(i >> 8), byte(i)}), Port: 80, At: 80})
	}
	elements := func() int {
		c, err := m.net.nft()
		must(t, err)
		set, err := c.GetSetByName(m.net.guardTable(true), "sockets")
		must(t, err)
		got, err := c.GetSetElements(set)
		must(t, err)
		return len(got)
	}
	for _, n := range []int{10, 5000, 4990, 0, 3} {
		must(t, m.net.SetServiceSockets(all[:n]))
		if got := elements(); got != n {
			t.Errorf("%d elements, want %d", got, n)
		}
	}
	must(t, m.net.removeTables())
	m.net.again(t.Context()) // Run looks
	if got := elements(); got != 3 {
		t.Errorf("after somebody flushed the ruleset: %d elements, want 3", got)
	}
}
