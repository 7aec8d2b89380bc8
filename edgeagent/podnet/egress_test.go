package podnet

import (
	"net/netip"
	"slices"
	"testing"

	"petrel.dev/petrel/internal/wire"
)

// A pod that talks to the world outside the cluster wears its node's address; to a pod of a peer, its own.
func TestMasquerade(t *testing.T) {
	ctx := t.Context()
	m, world := newMachine(t, Config{}), newMachine(t, Config{})
	connect(t, m, world, "192.168.7.1/24", "192.168.7.9/24")
	must(t, m.net.Setup(ctx, prefixes("10.42.0.0/24")))
	if p := m.net.Problems(); len(p) != 0 {
		t.Fatalf("problems: %v", p)
	}
	pod, err := m.net.Attach(ctx, "pod")
	must(t, err)
	// Make "world" able to answer both: the LAN address, and what looks like a pod on it.
	serveIn(t, world, 80)
	if got, err := getFromPod(t, pod, "192.168.7.9:80"); err != nil || got != "192.168.7.1" {
		t.Errorf("world sees %q, want the node's address (error %v)", got, err)
	}
	// The same machine as a peer whose bridge answers with its own pod network.
	must(t, world.net.Setup(ctx, prefixes("10.42.9.0/24")))
	must(t, world.net.SetRoutes(ctx, []wire.Peer{{Name: "m", PodCIDR: []string{"10.42.0.0/24"}, Address: []string{"192.168.7.1"}}}))
	must(t, m.net.SetRoutes(ctx, []wire.Peer{{Name: "w", PodCIDR: []string{"10.42.9.0/24"}, Address: []string{"192.168.7.9"}}}))
	if got, err := getFromPod(t, pod, "10.42.9.1:80"); err != nil || got != pod.IPs[0].String() {
		t.Errorf("peer sees %q, want the pod's address (error %v)", got, err)
	}
}

func TestExempt(t *testing.T) {
	peers := []wire.Peer{{PodCIDR: []string{"10.42.1.0/24", "fd00:42:1::/64"}}, {PodCIDR: []string{"10.99.0.0/24", "nonsense"}}}
	for _, c := range []struct {
		is4          bool
		own, cluster []netip.Prefix
		want         []netip.Prefix
	}{
		{true, prefixes("10.42.0.0/24"), nil, prefixes("10.42.0.0/24", "10.42.1.0/24", "10.99.0.0/24")},
		{true, prefixes("10.42.0.0/24"), prefixes("10.42.0.0/16"), prefixes("10.42.0.0/16", "10.99.0.0/24")},
		{false, prefixes("fd00:42::/64"), nil, prefixes("fd00:42::/64", "fd00:42:1::/64")},
	} {
		if got := exempt(c.is4, c.own, c.cluster, peers); !slices.Equal(got, c.want) {
			t.Errorf("got %v, want %v", got, c.want)
		}
	}
}

// Peers come, change their address, and go; bad ones do not disturb good ones.
func TestSetRoutesFollowsPeers(t *testing.T) {
	ctx := t.Context()
	m, other := newMachine(t, Config{}), newMachine(t, Config{})
	connect(t, m, other, "192.168.7.1/24", "192.168.7.2/24")
	must(t, m.net.Setup(ctx, prefixes("10.42.0.0/24")))
	set := func(peers ...wire.Peer) error { return m.net.SetRoutes(ctx, peers) }
	peer := func(name, cidr, addr string) wire.Peer {
		return wire.Peer{Name: name, PodCIDR: []string{cidr}, Address: []string{addr}}
	}
	for _, step := range []struct {
		what     string
		peers    []wire.Peer
		routes   int
		problems []string
	}{
		{"two", []wire.Peer{peer("b", "10.42.1.0/24", "192.168.7.2"), peer("c", "10.42.2.0/24", "192.168.7.3")}, 2, nil},
		{"one moved", []wire.Peer{peer("b", "10.42.1.0/24", "192.168.7.77"), peer("c", "10.42.2.0/24", "192.168.7.3")}, 2, nil},
		{"one left", []wire.Peer{peer("c", "10.42.2.0/24", "192.168.7.3")}, 1, nil},
		{"itself is no peer", []wire.Peer{peer("me", "10.42.0.0/24", "192.168.7.1"), peer("c", "10.42.2.0/24", "192.168.7.3")}, 1, nil},
		{"no network yet", []wire.Peer{{Name: "new", Address: []string{"192.168.7.9"}}, peer("c", "10.42.2.0/24", "192.168.7.3")}, 1, nil},
		{"bad ones", []wire.Peer{peer("far", "10.42.5.0/24", "198.51.100.1"), peer("odd", "10.42.6.0/99", "192.168.7.6"),
			peer("mute", "10.42.8.0/24", ""), peer("clone", "10.42.7.0/24", "192.168.7.1"), peer("c", "10.42.2.0/24", "192.168.7.3")},
			1, []string{"peer clone", "peer far", "peer mute", "peer odd"}},
		{"none", nil, 0, nil},
	} {
		err := set(step.peers...)
		if (err != nil) != (len(step.problems) > 0) {
			t.Errorf("%s: %v", step.what, err)
		}
		if n := routeCount(t, m); n != step.routes {
			t.Errorf("%s: %d routes, want %d", step.what, n, step.routes)
		}
		var problems []string
		for k := range m.net.Problems() {
			problems = append(problems, k)
		}
		slices.Sort(problems)
		if !slices.Equal(problems, step.problems) {
			t.Errorf("%s: problems %v, want %v", step.what, m.net.Problems(), step.problems)
		}
	}
}
