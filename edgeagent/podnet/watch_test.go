package podnet

import (
	"context"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"petrel.dev/petrel/internal/wire"
)

// The interface goes down and comes back, with another address: the kernel has dropped the routes, Run restores them.
func TestRunFollowsInterfaces(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	m, other := newMachine(t, Config{}), newMachine(t, Config{})
	connect(t, m, other, "192.168.7.1/24", "192.168.7.2/24")
	must(t, m.net.Setup(ctx, prefixes("10.42.0.0/24")))
	must(t, m.net.SetRoutes(ctx, []wire.Peer{{Name: "b", PodCIDR: []string{"10.42.1.0/24"}, Address: []string{"192.168.7.2"}}}))
	changed := make(chan struct{}, 100)
	ended := make(chan error, 1)
	go func() { ended <- m.net.Run(ctx, func() { changed <- struct{}{} }) }()
	<-changed // the first look, with the subscriptions in place

	uplink := uplinkOf(t, m)
	must(t, m.nl.LinkSetDown(uplink))
	if n := routeCount(t, m); n != 0 {
		t.Fatalf("the kernel kept %d routes: this test would prove nothing", n)
	}
	must(t, m.nl.AddrReplace(uplink, &netlink.Addr{IPNet: ipNet(netip.MustParsePrefix("192.168.7.77/24"))}))
	must(t, m.nl.LinkSetUp(uplink))
	waitFor(t, "route is back", func() bool { return routeCount(t, m) == 1 })
	select {
	case <-changed:
	case <-time.After(time.Minute):
		t.Error("nobody was told")
	}

	for quiet := false; !quiet; { // so that nothing else brings it back
		select {
		case <-changed:
		case <-time.After(2 * settle):
			quiet = true
		}
	}
	// A network daemon that removes routes which are not its own.
	must(t, m.net.prune(nil))
	waitFor(t, "route is back", func() bool { return routeCount(t, m) == 1 })

	bridge, err := m.nl.LinkByName(DefaultBridge)
	must(t, err)
	must(t, m.nl.LinkDel(bridge))
	waitFor(t, "bridge is back", func() bool { l, err := find(m.nl, DefaultBridge); return err == nil && l != nil })

	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// More happens than Run can take in: it misses some of it, and goes on.
func TestRunOutlivesAFlood(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	m, other := newMachine(t, Config{Log: slog.New(slog.DiscardHandler)}), newMachine(t, Config{})
	connect(t, m, other, "192.168.7.1/24", "192.168.7.2/24")
	must(t, m.net.Setup(ctx, prefixes("10.42.0.0/24")))
	changed := make(chan struct{}, 1000)
	ended := make(chan error, 1)
	go func() { ended <- m.net.Run(ctx, func() { changed <- struct{}{} }) }()
	<-changed
	uplink := uplinkOf(t, m)
	m.net.mu.Lock() // as an Attach holds it while a slow card syncs
	for i := range 3000 {
		must(t, m.nl.AddrReplace(uplink, &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 168, byte(100 + i/250), byte(1 + i%250)}), 24))}))
		must(t, m.nl.LinkSetMTU(uplink, 1400+i%2))
	}
	m.net.mu.Unlock()
	time.Sleep(3 * settle)
	select {
	case err := <-ended:
		t.Fatalf("Run gives up: %v", err)
	default:
	}
	bridge, err := m.nl.LinkByName(DefaultBridge)
	must(t, err)
	must(t, m.nl.LinkDel(bridge))
	waitFor(t, "bridge is back", func() bool { l, err := find(m.nl, DefaultBridge); return err == nil && l != nil })
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// Attaching pods must not wake Run: its own work is no event.
func TestRunIgnoresPods(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	m := newMachine(t, Config{})
	must(t, m.net.Setup(ctx, prefixes("10.42.0.0/24")))
	changed := make(chan struct{}, 100)
	ended := make(chan error, 1)
	go func() { ended <- m.net.Run(ctx, func() { changed <- struct{}{} }) }()
	<-changed // the first look
	for _, uid := range []string{"a", "b"} {
		_, err := m.net.Attach(ctx, uid)
		must(t, err)
		must(t, m.net.Detach(ctx, uid))
	}
	select {
	case <-changed:
		t.Error("pods coming and going looked like a change of the node's network")
	case <-time.After(2 * settle):
	}
	cancel()
	must(t, <-ended)
}

func uplinkOf(t *testing.T, m *machine) netlink.Link {
	t.Helper()
	links, err := m.nl.LinkList()
	must(t, err)
	for _, l := range links {
		if l.Type() == "veth" && l.Attrs().MasterIndex == 0 {
			return l
		}
	}
	t.Fatal("no uplink")
	return nil
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("does not happen: %s", what)
		}
	}
}

// Both families at once, each with its gateway.
func TestDualStack(t *testing.T) {
	ctx := t.Context()
	m := newMachine(t, Config{ServiceCIDRs: prefixes("10.43.0.0/16", "fd00:43::/112")})
	must(t, m.net.Setup(ctx, prefixes("10.42.0.0/24", "fd00:42::/64")))
	a, err := m.net.Attach(ctx, "a")
	must(t, err)
	b, err := m.net.Attach(ctx, "b")
	must(t, err)
	serve(t, a, 80)
	if len(a.IPs) != 2 || a.Gateway != netip.MustParseAddr("10.42.0.1") {
		t.Fatalf("%+v", a)
	}
	for i, ip := range a.IPs {
		if got, err := getFromPod(t, b, netip.AddrPortFrom(ip, 80).String()); err != nil || got != b.IPs[i].String() {
			t.Errorf("%v: seen %q, %v", ip, got, err)
		}
	}
}

// After all that went through other namespaces, every thread of this process is where it started.
func TestNoThreadStaysAbroad(t *testing.T) {
	m := newMachine(t, Config{})
	must(t, m.net.Setup(t.Context(), prefixes("10.42.0.0/24")))
	for _, uid := range []string{"a", "b", "c"} {
		_, err := m.net.Attach(t.Context(), uid)
		must(t, err)
	}
	home, err := os.Readlink("/proc/self/ns/net")
	must(t, err)
	waitFor(t, "all threads at home", func() bool { // threads that were given up take a moment to die
		tasks, err := filepath.Glob("/proc/self/task/*/ns/net")
		must(t, err)
		for _, task := range tasks {
			if ns, err := os.Readlink(task); err == nil && ns != home {
				return false
			}
		}
		return len(tasks) > 0
	})
}

// Work that was about to happen on the main thread, which cannot be given up, happens on another.
func TestMainThreadIsSpared(t *testing.T) {
	if scratch == os.Getpid() || scratch == 0 {
		t.Errorf("work in other namespaces ran on thread %d of process %d", scratch, os.Getpid())
	}
}

func TestRefusals(t *testing.T) {
	ctx := t.Context()
	m := newMachine(t, Config{})
	peers := []wire.Peer{{Name: "far", PodCIDR: []string{"10.42.1.0/24"}, Address: []string{"198.51.100.1"}}}
	must(t, m.net.SetRoutes(ctx, peers)) // kept for later
	must(t, m.net.Setup(ctx, nil))       // no podCIDR yet: services only
	if _, err := m.net.Attach(ctx, "pod"); err != ErrNoPodCIDR {
		t.Errorf("before Setup: %v", err)
	}
	if err := m.net.Setup(ctx, prefixes("10.42.0.0/31")); err == nil {
		t.Error("a /31 has no room for a pod")
	}
	must(t, m.net.Setup(ctx, prefixes("10.42.0.0/30"))) // a peer out of reach does not keep this node from working
	if p := m.net.Problems(); p["peer far"] == "" {
		t.Errorf("problems: %v", p)
	}
	_, err := m.net.Attach(ctx, "only")
	must(t, err)
	if _, err := m.net.Attach(ctx, "one too many"); err == nil {
		t.Error("a /30 has room for one pod")
	}
	must(t, m.net.Detach(ctx, "only"))
	must(t, m.net.Detach(ctx, "only"))
	_, err = m.net.Attach(ctx, "next")
	must(t, err)

	other := newMachine(t, Config{Bridge: "lo"})
	if err := other.net.Setup(ctx, prefixes("10.42.0.0/24")); err == nil {
		t.Error("lo is not a bridge")
	}
	other.net.cfg.Bridge = DefaultBridge // so that cleanup leaves lo alone
}
