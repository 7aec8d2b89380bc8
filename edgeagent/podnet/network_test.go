package podnet

import (
	"net/netip"
	"os"
	"testing"

	"github.com/vishvananda/netlink"

	"petrel.dev/petrel/internal/wire"
)

func prefixes(ss ...string) (out []netip.Prefix) {
	for _, s := range ss {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// Two machines on one LAN, pods on each: they reach each other with their own addresses.
func TestPodsReachEachOtherAcrossLAN(t *testing.T) {
	ctx := t.Context()
	a, b := newMachine(t, Config{}), newMachine(t, Config{})
	connect(t, a, b, "192.168.7.1/24", "192.168.7.2/24")
	must(t, a.net.Setup(ctx, prefixes("10.42.0.0/24")))
	must(t, b.net.Setup(ctx, prefixes("10.42.1.0/24")))
	peers := []wire.Peer{
		{Name: "a", PodCIDR: []string{"10.42.0.0/24"}, Address: []string{"192.168.7.1"}},
		{Name: "b", PodCIDR: []string{"10.42.1.0/24"}, Address: []string{"192.168.7.2"}},
	}
	must(t, a.net.SetRoutes(ctx, peers))
	must(t, b.net.SetRoutes(ctx, peers))

	a1, err := a.net.Attach(ctx, "pod-a1")
	must(t, err)
	a2, err := a.net.Attach(ctx, "pod-a2")
	must(t, err)
	b1, err := b.net.Attach(ctx, "pod-b1")
	must(t, err)
	serve(t, a1, 80)
	serve(t, b1, 80)

	for _, c := range []struct {
		what, to string
		from     Attachment
		sees     netip.Addr
	}{
		{"same machine", a1.IPs[0].String(), a2, a2.IPs[0]},
		{"itself", a1.IPs[0].String(), a1, a1.IPs[0]},
		{"other machine", b1.IPs[0].String(), a1, a1.IPs[0]},
		{"and back", a1.IPs[0].String(), b1, b1.IPs[0]},
	} {
		got, err := getFromPod(t, c.from, c.to+":80")
		if err != nil || got != c.sees.String() {
			t.Errorf("%s: client address seen %q, want %v (error %v)", c.what, got, c.sees, err)
		}
	}
	// The node itself reaches remote pods, as proxy and probes do, with its bridge's address.
	if got, err := get(int(a.ns), b1.IPs[0].String()+":80"); err != nil || got != "10.42.0.1" {
		t.Errorf("node to remote pod: seen %q, error %v", got, err)
	}
}

func TestAttachIsIdempotentAndSurvivesRestart(t *testing.T) {
	ctx := t.Context()
	m := newMachine(t, Config{})
	must(t, m.net.Setup(ctx, prefixes("10.42.0.0/24")))
	first, err := m.net.Attach(ctx, "pod")
	must(t, err)
	serve(t, first, 80)
	before := ifindex(t, m, vethName("pod"))

	m.restart()
	must(t, m.net.Setup(ctx, prefixes("10.42.0.0/24")))
	second, err := m.net.Attach(ctx, "pod")
	must(t, err)
	if second.IPs[0] != first.IPs[0] || second.NetnsPath != first.NetnsPath {
		t.Errorf("after restart %+v, before %+v", second, first)
	}
	if after := ifindex(t, m, vethName("pod")); after != before {
		t.Error("the pod's interface was made anew under a running pod")
	}
	if _, err := get(int(m.ns), first.IPs[0].String()+":80"); err != nil {
		t.Errorf("the server that ran all the time is out of reach: %v", err)
	}
}

// A reboot leaves empty files where namespaces were pinned and the address records; everything else is gone.
func TestRebootKeepsAddress(t *testing.T) {
	ctx := t.Context()
	m := newMachine(t, Config{})
	must(t, m.net.Setup(ctx, prefixes("10.42.0.0/24")))
	first, err := m.net.Attach(ctx, "pod")
	must(t, err)
	_, err = m.net.Attach(ctx, "pod-deleted-while-down")
	must(t, err)

	for _, uid := range []string{"pod", "pod-deleted-while-down"} { // the reboot
		must(t, unpin(m.net.netnsPath(uid)))
		must(t, os.WriteFile(m.net.netnsPath(uid), nil, 0o444))
	}
	must(t, m.net.deleteLink(DefaultBridge))

	m.restart()
	must(t, m.net.Setup(ctx, prefixes("10.42.0.0/24")))
	m.net.mu.Lock()
	uids, err := m.net.attached()
	m.net.mu.Unlock()
	must(t, err)
	if len(uids) != 2 {
		t.Fatalf("after the reboot known: %v", uids)
	}
	must(t, m.net.Detach(ctx, "pod-deleted-while-down"))
	again, err := m.net.Attach(ctx, "pod")
	must(t, err)
	if again.IPs[0] != first.IPs[0] {
		t.Errorf("address after reboot %v, before %v", again.IPs[0], first.IPs[0])
	}
	serve(t, again, 80)
	if _, err := get(int(m.ns), again.IPs[0].String()+":80"); err != nil {
		t.Error(err)
	}
}

// A kill at any point of Attach or Detach leaves some of its pieces; the next Attach completes them.
func TestAttachRepairs(t *testing.T) {
	ctx := t.Context()
	damage := map[string]func(m *machine, a Attachment){
		"no veth":      func(m *machine, a Attachment) { must(t, m.net.deleteLink(vethName("pod"))) },
		"no record":    func(m *machine, a Attachment) { must(t, m.net.release("pod")) },
		"no namespace": func(m *machine, a Attachment) { must(t, unpin(a.NetnsPath)) },
		"empty record": func(m *machine, a Attachment) { must(t, os.Truncate(m.net.ipamDir()+"/"+a.IPs[0].String(), 0)) },
		"no bridge":    func(m *machine, a Attachment) { must(t, m.net.deleteLink(DefaultBridge)) },
		"port out of bridge": func(m *machine, a Attachment) {
			l, _ := m.nl.LinkByName(vethName("pod"))
			must(t, m.nl.LinkSetNoMaster(l))
		},
		"unpinned file left": func(m *machine, a Attachment) {
			must(t, unpin(a.NetnsPath))
			must(t, os.WriteFile(a.NetnsPath, nil, 0o444))
		},
	}
	for what, break_ := range damage {
		t.Run(what, func(t *testing.T) {
			m := newMachine(t, Config{})
			must(t, m.net.Setup(ctx, prefixes("10.42.0.0/24")))
			a, err := m.net.Attach(ctx, "pod")
			must(t, err)
			break_(m, a)
			m.restart()
			must(t, m.net.Setup(ctx, prefixes("10.42.0.0/24")))
			again, err := m.net.Attach(ctx, "pod")
			must(t, err)
			if again.IPs[0] != a.IPs[0] {
				t.Errorf("address %v, was %v", again.IPs[0], a.IPs[0])
			}
			serve(t, again, 80)
			if _, err := get(int(m.ns), again.IPs[0].String()+":80"); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestCleanupLeavesNothing(t *testing.T) {
	ctx := t.Context()
	m := newMachine(t, Config{ServiceCIDRs: prefixes("10.43.0.0/16")})
	connect(t, m, newMachine(t, Config{}), "192.168.8.1/24", "192.168.8.2/24")
	linksBefore, routesBefore := linkNames(t, m), routeCount(t, m)
	must(t, m.net.Setup(ctx, prefixes("10.42.0.0/24")))
	must(t, m.net.SetRoutes(ctx, []wire.Peer{{Name: "x", PodCIDR: []string{"10.42.1.0/24"}, Address: []string{"192.168.8.2"}}}))
	_, err := m.net.Attach(ctx, "pod")
	must(t, err)
	if routeCount(t, m) == routesBefore {
		t.Fatal("no routes made: this test would prove nothing")
	}
	m.restart() // petrel uninstall is another process
	must(t, m.net.Cleanup(ctx))
	if got := linkNames(t, m); got != linksBefore {
		t.Errorf("interfaces left: %s, before: %s", got, linksBefore)
	}
	if got := routeCount(t, m); got != routesBefore {
		t.Errorf("routes left: %d, before: %d", got, routesBefore)
	}
	if _, err := os.Stat(m.cfg.StateDir); !os.IsNotExist(err) {
		t.Errorf("state directory left: %v", err)
	}
	c, err := m.net.nft()
	must(t, err)
	tables, err := c.ListTables()
	must(t, err)
	if len(tables) != 0 {
		t.Errorf("nftables tables left: %+v", tables)
	}
	must(t, m.net.Cleanup(ctx)) // twice is fine
}

func ifindex(t *testing.T, m *machine, name string) int {
	t.Helper()
	l, err := m.nl.LinkByName(name)
	must(t, err)
	return l.Attrs().Index
}

func linkNames(t *testing.T, m *machine) (s string) {
	t.Helper()
	links, err := m.nl.LinkList()
	must(t, err)
	for _, l := range links {
		s += l.Attrs().Name + " "
	}
	return s
}

func routeCount(t *testing.T, m *machine) int {
	t.Helper()
	n := 0
	for _, table := range []int{254, 255} {
		rs, err := m.nl.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Table: table, Protocol: routeProtocol}, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_PROTOCOL)
		must(t, err)
		n += len(rs)
	}
	return n
}
