package svcproxy

import (
	"fmt"
	"math"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestUsable(t *testing.T) {
	ep := func(last byte, node string, flags string) Endpoint {
		return Endpoint{Addr: netip.AddrFrom4([4]byte{10, 42, 0, last}), Ports: map[string]uint16{"http": 8080}, Node: node,
			Ready: strings.Contains(flags, "r"), Serving: strings.Contains(flags, "s"), Terminating: strings.Contains(flags, "t")}
	}
	http := Port{Name: "http", Protocol: TCP, Port: 80}
	for _, c := range []struct {
		name       string
		endpoints  []Endpoint
		notReady   bool
		localOnly  bool
		port, want string
	}{
		{name: "ready ones", endpoints: []Endpoint{ep(2, "a", "rs"), ep(1, "b", "rs"), ep(3, "a", "")}, want: "1 2"},
		{name: "terminating ones only as a last resort", endpoints: []Endpoint{ep(1, "a", "rs"), ep(2, "a", "st")}, want: "1"},
		{name: "last resort", endpoints: []Endpoint{ep(1, "a", ""), ep(2, "a", "st"), ep(3, "a", "t")}, want: "2"},
		{name: "serving but never ready", endpoints: []Endpoint{ep(1, "a", "s")}, want: ""},
		{name: "publish not ready", endpoints: []Endpoint{ep(1, "a", ""), ep(2, "a", "rs")}, notReady: true, want: "1 2"},
		{name: "local only", endpoints: []Endpoint{ep(1, "here", "rs"), ep(2, "a", "rs")}, localOnly: true, want: "1"},
		{name: "local only, none here", endpoints: []Endpoint{ep(2, "a", "rs")}, localOnly: true, want: ""},
		{name: "local only, last resort here", endpoints: []Endpoint{ep(1, "here", "st"), ep(2, "a", "rs")}, localOnly: true, want: "1"},
		{name: "another port", endpoints: []Endpoint{ep(1, "a", "rs")}, port: "https", want: ""},
		{name: "twice the same", endpoints: []Endpoint{ep(1, "a", "rs"), ep(1, "a", "rs")}, want: "1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			port := http
			if c.port != "" {
				port.Name = c.port
			}
			var got []string
			for _, e := range usable(&Service{Endpoints: c.endpoints, PublishNotReady: c.notReady}, port, "here", "", c.localOnly) {
				got = append(got, fmt.Sprint(e.Addr().As4()[3]))
			}
			if s := strings.Join(got, " "); s != c.want {
				t.Errorf("got %q, want %q", s, c.want)
			}
		})
	}
}

func TestPlanConflicts(t *testing.T) {
	a := netip.MustParseAddrPort("10.42.0.5:80")
	lb := func(name string) Service {
		s := service(name, "", Port{Protocol: TCP, Port: 80}, endpoint(a))
		s.LoadBalancer = true
		return s
	}
	node := addrs("192.168.1.7")
	key := listenKey{TCP, netip.MustParseAddrPort("192.168.1.7:80")}
	table := &Table{Services: []Service{lb("b"), lb("a")}}
	for _, c := range []struct{ current, winner, loser string }{
		{"", "default/a", "default/b"},
		{"default/a", "default/a", "default/b"},
		{"default/b", "default/b", "default/a"}, // the first to come keeps it
		{"default/gone", "default/a", "default/b"},
	} {
		wanted, conflicts := plan(table, "here", node, nil, inServiceNet, func(listenKey) string { return c.current })
		if w := wanted[key].owner(); w != c.winner {
			t.Errorf("current %q: %s has it, want %s", c.current, w, c.winner)
		}
		if len(conflicts) != 1 || conflicts[0].loser != c.loser || conflicts[0].winner != c.winner {
			t.Errorf("current %q: conflicts %+v", c.current, conflicts)
		}
	}
}

// Whatever tables come one after the other, the open sockets are those of the last one, each with its endpoints.
func TestApplyIsTheWholeTruth(t *testing.T) {
	p := start(t, Config{NodeAddrs: func() []netip.Addr { return addrs("192.168.1.7") }})
	nobody := func(listenKey) string { return "" }
	rapid.Check(t, func(r *rapid.T) {
		for range rapid.IntRange(1, 4).Draw(r, "tables") {
			table := drawTable(r)
			applyRapid(r, p, table)
			wanted, _ := plan(&table, "here", p.nodeAddrs(), nil, inServiceNet, nobody)
			if got := p.Stats().Listeners + len(failed(p)); got != len(wanted) {
				r.Fatalf("%d sockets open (problems %v), want %d", got, p.Problems(), len(wanted))
			}
		}
		eventually(t, "settled", func() bool { return len(p.kick) == 0 })
	})
}

// failed lists the listeners that could not be opened, which conflicts are not.
func failed(p *Proxy) (out []Problem) {
	for _, pr := range p.Problems() {
		if strings.Contains(pr.Reason, errListen.Error()) {
			out = append(out, pr)
		}
	}
	return out
}

func applyRapid(r *rapid.T, p *Proxy, table Table) {
	before := p.Stats().Applied
	p.Apply(table)
	for end := time.Now().Add(time.Minute); p.Stats().Applied == before; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			r.Fatal("table is not put in force")
		}
	}
}

func drawTable(r *rapid.T) Table {
	var t Table
	for _, name := range rapid.SliceOfNDistinct(rapid.StringMatching(`[a-d]`), 0, 4, rapid.ID[string]).Draw(r, "services") {
		s := Service{Namespace: "ns", Name: name, LoadBalancer: rapid.Bool().Draw(r, "lb")}
		s.ClusterIPs = []netip.Addr{netip.AddrFrom4([4]byte{10, 43, 7, rapid.ByteRange(1, 4).Draw(r, "ip")})}
		for i := range rapid.IntRange(0, 2).Draw(r, "ports") {
			s.Ports = append(s.Ports, Port{Name: fmt.Sprint("p", i), Protocol: rapid.SampledFrom([]Protocol{TCP, UDP}).Draw(r, "proto"),
				Port: rapid.Uint16Range(7000, 7003).Draw(r, "port"), NodePort: rapid.SampledFrom([]uint16{0, 30000, 30001}).Draw(r, "nodePort")})
		}
		for range rapid.IntRange(0, 2).Draw(r, "endpoints") {
			s.Endpoints = append(s.Endpoints, Endpoint{Addr: netip.AddrFrom4([4]byte{10, 42, 0, rapid.ByteRange(1, 5).Draw(r, "pod")}),
				Ports: map[string]uint16{"p0": 80, "p1": 81}, Ready: rapid.Bool().Draw(r, "ready"), Node: "here"})
		}
		t.Services = append(t.Services, s)
	}
	return t
}

// Endpoint choice: never one outside the list, none twice, suspects last, the bound one first.
func TestSequence(t *testing.T) {
	now := time.Unix(1000, 0)
	rapid.Check(t, func(r *rapid.T) {
		n := rapid.IntRange(1, 6).Draw(r, "endpoints")
		to := &target{affinity: time.Minute * time.Duration(rapid.IntRange(0, 1).Draw(r, "affinity"))}
		for i := range n {
			to.endpoints = append(to.endpoints, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 42, 0, byte(i + 1)}), 80))
		}
		var bad suspects
		for _, e := range to.endpoints {
			if rapid.Bool().Draw(r, "suspect") {
				bad.add(e, now)
			}
		}
		g, client := newGroup(), netip.MustParseAddr("10.42.0.9")
		bound := rapid.SampledFrom(to.endpoints).Draw(r, "bound")
		g.bind(client, to, bound, now)
		limit := rapid.IntRange(1, 8).Draw(r, "limit")
		got := g.sequence(client, to, &bad, now.Add(time.Second), limit)
		if len(got) != min(n, limit) {
			r.Fatalf("%d of %d, limit %d", len(got), n, limit)
		}
		seenBad := false
		for i, e := range got {
			if !slices.Contains(to.endpoints, e) || slices.Contains(got[:i], e) {
				r.Fatalf("unknown or twice: %v", got)
			}
			isBad := bad.is(e, now)
			if seenBad && !isBad {
				r.Fatalf("a suspect before a good one: %v", got)
			}
			seenBad = isBad
		}
		if to.affinity > 0 && !bad.is(bound, now) && got[0] != bound {
			r.Fatalf("bound to %v, first tried %v", bound, got[0])
		}
		// Both are over some time later.
		late := g.sequence(client, to, &bad, now.Add(time.Hour), n)
		for _, e := range late {
			if bad.is(e, now.Add(time.Hour)) {
				r.Fatal("suspect for ever")
			}
		}
	})
}

// TestTurnsWrap counts turns over 2³¹, where an int of 32 bits becomes negative, and over 2³².
func TestTurnsWrap(t *testing.T) {
	to := &target{}
	for i := range 3 {
		to.endpoints = append(to.endpoints, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 42, 0, byte(i + 1)}), 80))
	}
	var bad suspects
	for _, last := range []uint32{math.MaxInt32 - 2, math.MaxUint32 - 2} {
		g := newGroup()
		g.turn.Store(last)
		for range 5 {
			got := g.sequence(netip.MustParseAddr("10.42.0.9"), to, &bad, time.Unix(1000, 0), 3)
			if slices.SortFunc(got, netip.AddrPort.Compare); !slices.Equal(got, to.endpoints) {
				t.Errorf("turn %d: %v", g.turn.Load(), got)
			}
		}
	}
}

func TestAffinityMemoryIsBounded(t *testing.T) {
	g, now := newGroup(), time.Unix(1000, 0)
	to := &target{affinity: time.Hour, endpoints: []netip.AddrPort{netip.MustParseAddrPort("10.42.0.1:80")}}
	for i := range maxSticky + 1000 {
		g.bind(netip.AddrFrom4([4]byte{100, 64, byte(i >> 8), byte(i)}), to, to.endpoints[0], now)
	}
	if len(g.sticky) > maxSticky {
		t.Errorf("%d clients remembered", len(g.sticky))
	}
}

func inServiceNet(a netip.Addr) bool { return netip.MustParsePrefix(serviceNet).Contains(a) }

// A client gives a Service the address of another as an external IP, or a port of the node that another has (CVE-2020-8554):
// the first is refused, and of two that want the same port the older has it, whatever their names.
func TestExternalIPsTakeNothing(t *testing.T) {
	owner := service("victim", "10.43.0.5", web, endpoint(netip.MustParseAddrPort("10.42.0.1:8080")))
	owner.ExternalIPs, owner.Created = []netip.Addr{netip.MustParseAddr("192.168.1.7")}, 100
	thief := service("a-thief", "10.43.0.66", web, endpoint(netip.MustParseAddrPort("10.42.0.66:8080")))
	thief.ExternalIPs = []netip.Addr{netip.MustParseAddr("10.43.0.5"), netip.MustParseAddr("10.43.0.99"), netip.MustParseAddr("192.168.1.7")}
	thief.Created = 200
	nobody := func(listenKey) string { return "" } // the agent has just started
	wanted, conflicts := plan(&Table{Services: []Service{thief, owner}}, "here", nil, nil, inServiceNet, nobody)
	for _, addr := range []string{"10.43.0.5:80", "192.168.1.7:80"} {
		if to := wanted[listenKey{TCP, netip.MustParseAddrPort(addr)}]; to == nil || to.owner() != "default/victim" {
			t.Errorf("%s belongs to %+v", addr, to)
		}
	}
	if to := wanted[listenKey{TCP, netip.MustParseAddrPort("10.43.0.99:80")}]; to != nil {
		t.Error("an address that the hub may give out tomorrow is taken")
	}
	if len(conflicts) != 3 {
		t.Errorf("conflicts: %+v", conflicts)
	}
}

// loadBalancerSourceRanges is obeyed at the load balancer's port (case 04), and nowhere else.
func TestLoadBalancerSourceRanges(t *testing.T) {
	s := service("lb", "10.43.0.5", Port{Protocol: TCP, Port: 8181, NodePort: 30081}, endpoint(netip.MustParseAddrPort("10.42.0.1:8080")))
	s.LoadBalancer, s.Filtered, s.SourceRanges = true, true, []netip.Prefix{netip.MustParsePrefix("10.99.0.0/16")}
	wanted, _ := plan(&Table{Services: []Service{s}}, "here", []netip.Addr{netip.MustParseAddr("192.168.1.7")}, nil, inServiceNet,
		func(listenKey) string { return "" })
	for addr, open := range map[string]bool{"192.168.1.7:8181": false, "192.168.1.7:30081": true, "10.43.0.5:8181": true} {
		to := wanted[listenKey{TCP, netip.MustParseAddrPort(addr)}]
		if to == nil || to.admits(netip.MustParseAddr("192.168.1.9")) != open || !to.admits(netip.MustParseAddr("10.99.3.4")) {
			t.Errorf("%s: %+v", addr, to)
		}
	}

	p := start(t, Config{})
	s.Endpoints = []Endpoint{endpoint(backend(t, "a"))}
	s.SourceRanges = []netip.Prefix{netip.MustParsePrefix("127.0.0.9/32")}
	apply(t, p, Table{Services: []Service{s}})
	if got, err := hello("192.168.1.7:8181"); err == nil {
		t.Errorf("a client outside of the ranges: %q", got)
	}
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: neighbour.AsSlice()}}
	c, err := d.DialContext(t.Context(), "tcp", "192.168.1.7:8181")
	must(t, err)
	defer c.Close()
	if got, err := readName(c); got != "a" {
		t.Errorf("a client in the ranges: %q, %v", got, err)
	}
}
