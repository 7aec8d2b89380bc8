package podnet

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// The tests run in a network and mount namespace of their own, so that they can neither see nor disturb the machine,
// and whatever they leave behind is gone with their process.
const isolated = "PODNET_TEST_ISOLATED"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == proxyCommand {
		runProxy()
		return
	}
	if os.Getenv(isolated) == "" && os.Getuid() == 0 {
		cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
		cmd.Env = append(os.Environ(), isolated+"=1")
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS}
		if err := cmd.Run(); err != nil {
			fmt.Fprintln(os.Stderr, "isolated test process:", err)
			os.Exit(1)
		}
		return
	}
	if os.Getenv(isolated) != "" {
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			fmt.Fprintln(os.Stderr, "make mounts private:", err)
			os.Exit(1)
		}
		// /proc/sys and /sys must show this namespace.
		_ = unix.Mount("proc", "/proc", "proc", 0, "")
	}
	done := make(chan error, 1)
	sacrificed(func() error { scratch = unix.Gettid(); return nil }, done)
	os.Exit(m.Run())
}

// needRoot skips where namespaces cannot be made; in CI that is a failure.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Getenv(isolated) != "" {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("this test needs root")
	}
	t.Skip("this test needs root")
}

// machine is a simulated computer: a network namespace with a Network in it.
type machine struct {
	t   *testing.T
	ns  netns.NsHandle
	nl  *netlink.Handle
	net *Network
	cfg Config
}

func newMachine(t *testing.T, cfg Config) *machine {
	t.Helper()
	needRoot(t)
	m := &machine{t: t, cfg: cfg}
	if m.cfg.StateDir == "" {
		m.cfg.StateDir = filepath.Join(t.TempDir(), "net")
	}
	if m.cfg.Log == nil {
		m.cfg.Log = slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelWarn}))
	}
	must(t, sacrifice(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		var err error
		m.ns, err = netns.Get()
		return err
	}))
	var err error
	m.nl, err = netlink.NewHandleAt(m.ns)
	must(t, err)
	lo, err := m.nl.LinkByName("lo")
	must(t, err)
	must(t, m.nl.LinkSetUp(lo))
	m.restart()
	t.Cleanup(func() {
		if err := m.net.Cleanup(t.Context()); err != nil && t.Context().Err() == nil {
			t.Errorf("cleanup: %v", err)
		}
		m.nl.Close()
		m.ns.Close()
	})
	return m
}

// restart is a new agent process, as far as this package can tell: nothing is kept but disk and kernel.
func (m *machine) restart() {
	m.t.Helper()
	must(m.t, inNamespace(int(m.ns), func() error { m.net = New(m.cfg); return nil }))
}

// connect joins two machines by a cable.
func connect(t *testing.T, a, b *machine, aAddr, bAddr string) {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "up" + string(rune('a'+cables))
	cables++
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: attrs.Name, PeerNamespace: netlink.NsFd(b.ns)}
	must(t, a.nl.LinkAdd(veth))
	for _, end := range []struct {
		m    *machine
		addr string
	}{{a, aAddr}, {b, bAddr}} {
		l, err := end.m.nl.LinkByName(attrs.Name)
		must(t, err)
		p := netip.MustParsePrefix(end.addr)
		must(t, end.m.nl.AddrAdd(l, &netlink.Addr{IPNet: ipNet(p), Flags: unix.IFA_F_NODAD}))
		must(t, end.m.nl.LinkSetUp(l))
	}
}

var cables int

// defaultRoute sends a machine's traffic for elsewhere to a neighbour.
func defaultRoute(t *testing.T, m *machine, via netip.Addr) {
	t.Helper()
	must(t, m.nl.RouteAdd(&netlink.Route{Dst: defaultDst(via), Gw: via.AsSlice()}))
}

// in runs f in a pod's namespace.
func in(t *testing.T, path string, f func() error) {
	t.Helper()
	ns, err := netns.GetFromPath(path)
	must(t, err)
	defer ns.Close()
	must(t, inNamespace(int(ns), f))
}

// serve answers HTTP in a pod with the client's address.
func serve(t *testing.T, a Attachment, port int) {
	t.Helper()
	in(t, a.NetnsPath, func() error { return answerWithClient(t, port) })
}

// serveIn does the same on a machine itself.
func serveIn(t *testing.T, m *machine, port int) {
	t.Helper()
	must(t, inNamespace(int(m.ns), func() error { return answerWithClient(t, port) }))
}

func answerWithClient(t *testing.T, port int) error {
	l, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
	if err != nil {
		return err
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		fmt.Fprint(w, host)
	})}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
	return nil
}

// get calls an address from inside a namespace and returns what the server saw as the client's address.
func get(fd int, addr string) (string, error) { return getWithin(time.Minute, fd, addr) }

// getWithin is get with a limit to how long connection and answer may take together. A short one is for calls that are not to succeed.
func getWithin(limit time.Duration, fd int, addr string) (string, error) {
	var body string
	err := inNamespace(fd, func() error {
		end := time.Now().Add(limit)
		c, err := (&net.Dialer{Deadline: end}).Dial("tcp", addr)
		if err != nil {
			return err
		}
		defer c.Close()
		_ = c.SetDeadline(end)
		if _, err := io.WriteString(c, "GET / HTTP/1.0\r\n\r\n"); err != nil {
			return err
		}
		b, err := io.ReadAll(c)
		if i := len(b); err == nil && i > 0 {
			_, rest, _ := cutLast(string(b), "\r\n\r\n")
			body = rest
		}
		return err
	})
	return body, err
}

func cutLast(s, sep string) (before, after string, ok bool) {
	for i := len(s) - len(sep); i >= 0; i-- {
		if s[i:i+len(sep)] == sep {
			return s[:i], s[i+len(sep):], true
		}
	}
	return s, "", false
}

// getFromPod is get from a pod.
func getFromPod(t *testing.T, a Attachment, addr string) (string, error) {
	t.Helper()
	ns, err := netns.GetFromPath(a.NetnsPath)
	must(t, err)
	defer ns.Close()
	return get(int(ns), addr)
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) { w.t.Logf("%s", b); return len(b), nil }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func init() { runtime.LockOSThread() } // TestMain runs on the main thread

// scratch is the thread that did work which TestMain asked for on the main thread.
var scratch int
