package svcproxy

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Tests with sockets run in a network namespace of their own where the service network is local, as podnet makes it on
// a node: they need root for that, and disturb nobody.
const isolated = "SVCPROXY_TEST_ISOLATED"

// emulator is set by cross-build/emulate.sh. qemu's user emulation makes no namespace, so tests with sockets are left out there.
const emulator = "PETREL_TEST_EMULATOR"

const serviceNet = "10.43.0.0/16"

func TestMain(m *testing.M) {
	fuzzing := slices.ContainsFunc(os.Args, func(a string) bool { return strings.HasPrefix(a, "-test.fuzz") })
	if os.Getenv(isolated) == "" && os.Getuid() == 0 && !fuzzing && os.Getenv(emulator) == "" { // fuzz workers have pipes to their parent

		cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
		cmd.Env = append(os.Environ(), isolated+"=1")
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
		if err := cmd.Run(); err != nil {
			fmt.Fprintln(os.Stderr, "isolated test process:", err)
			os.Exit(1)
		}
		return
	}
	if os.Getenv(isolated) != "" {
		if err := makeNode(); err != nil {
			fmt.Fprintln(os.Stderr, "prepare test namespace:", err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// makeNode gives the namespace a loopback with the service network and a node address.
func makeNode() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	_, dst, _ := net.ParseCIDR(serviceNet)
	if err := netlink.RouteAdd(&netlink.Route{LinkIndex: lo.Attrs().Index, Dst: dst, Type: unix.RTN_LOCAL,
		Table: unix.RT_TABLE_LOCAL, Scope: netlink.SCOPE_HOST}); err != nil {
		return err
	}
	addr, _ := netlink.ParseAddr("192.168.1.7/32")
	return netlink.AddrAdd(lo, addr)
}

func needNamespace(t testing.TB) {
	t.Helper()
	if os.Getenv(isolated) != "" {
		return
	}
	if os.Getenv(emulator) != "" {
		t.Skip("this test needs a network namespace, which qemu's user emulation does not make")
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("this test needs root")
	}
	t.Skip("this test needs root")
}

// start runs a proxy until the test ends.
func start(t testing.TB, cfg Config) *Proxy {
	t.Helper()
	needNamespace(t)
	if cfg.Node == "" {
		cfg.Node = "here"
	}
	cfg.ServiceCIDRs = []netip.Prefix{netip.MustParsePrefix(serviceNet)}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	p := New(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(time.Minute):
			t.Error("Run does not end")
		}
	})
	return p
}

// apply applies a table and waits until it is in force.
func apply(t testing.TB, p *Proxy, table Table) {
	t.Helper()
	before := p.Stats().Applied
	p.Apply(table)
	eventually(t, "table in force", func() bool { return p.Stats().Applied > before })
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("does not happen: %s", what)
		}
	}
}

// backend is a TCP server that sends its name and then echoes.
func backend(t testing.TB, name string) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.WriteString(c, name+"\n")
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// udpBackend answers each datagram with its name and the datagram.
func udpBackend(t testing.TB, name string) netip.AddrPort {
	t.Helper()
	c, err := net.ListenPacket("udp4", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { _ = c.Close() })
	go func() {
		b := make([]byte, 65536)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = c.WriteTo(append([]byte(name+" "), b[:n]...), from)
		}
	}()
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}

func endpoint(to netip.AddrPort) Endpoint {
	return Endpoint{Addr: to.Addr(), Ports: map[string]uint16{"": to.Port()}, Ready: true, Serving: true, Node: "here"}
}

func service(name, ip string, port Port, endpoints ...Endpoint) Service {
	s := Service{Namespace: "default", Name: name, Ports: []Port{port}, Endpoints: endpoints}
	if ip != "" {
		s.ClusterIPs = []netip.Addr{netip.MustParseAddr(ip)}
	}
	return s
}

// hello connects, reads the backend's name and hangs up.
func hello(addr string) (string, error) {
	c, err := net.DialTimeout("tcp", addr, time.Minute)
	if err != nil {
		return "", err
	}
	defer c.Close()
	return readName(c)
}

func readName(c net.Conn) (string, error) {
	_ = c.SetReadDeadline(time.Now().Add(time.Minute))
	defer c.SetReadDeadline(time.Time{})
	var name []byte
	var b [1]byte
	for {
		if _, err := io.ReadFull(c, b[:]); err != nil {
			return "", err
		}
		if b[0] == '\n' {
			return string(name), nil
		}
		name = append(name, b[0])
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
