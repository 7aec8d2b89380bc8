package svcproxy

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"petrel.dev/petrel/svcproxy/topology"
)

// listenKey is one socket of the proxy.
type listenKey struct {
	proto Protocol
	addr  netip.AddrPort
}

func (k listenKey) String() string { return string(k.proto) + " " + k.addr.String() }

// groupKey is what shares session affinity and rotation: one port of one Service, however it is reached.
type groupKey struct{ owner, port string }

// target is what is behind a listener. It is immutable.
type target struct {
	group     groupKey
	endpoints []netip.AddrPort // sorted; never empty but with health
	affinity  time.Duration    // 0: none
	filtered  bool
	sources   []netip.Prefix // with filtered: who may come in
	health    *health        // not nil: this is a Service's health check port, which the proxy answers itself
}

// admits reports whether a client may use the listener.
func (t *target) admits(client netip.Addr) bool {
	return !t.filtered || slices.ContainsFunc(t.sources, func(p netip.Prefix) bool { return p.Contains(client.Unmap().WithZone("")) })
}

func (t *target) owner() string { return t.group.owner }

// conflict says that a listener was asked for twice.
type conflict struct {
	key           listenKey
	loser, winner string
}

// plan computes all listeners for a table. A Service port without usable endpoint gets none, so that the kernel refuses
// its clients at once. When two owners ask for the same address and port, the one that current names keeps it, else the
// oldest Service wins, and of equals the first by name; reserved addresses belong to nobody in the table. An external IP
// must not be of the service networks: those are given out by the hub, one to each Service.
func plan(t *Table, node string, nodeAddrs []netip.Addr, reserved map[listenKey]bool, isService func(netip.Addr) bool, current func(listenKey) string) (map[listenKey]*target, []conflict) {
	pl := planner{zone: t.Zone, wanted: map[listenKey]*target{}, current: current, reserved: reserved, isService: isService}
	services := slices.Clone(t.Services)
	slices.SortFunc(services, func(a, b Service) int {
		return cmp.Or(cmp.Compare(a.Created, b.Created), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	for i := range services {
		pl.service(&services[i], node, nodeAddrs)
	}
	for _, h := range t.HostPorts {
		pl.hostPort(h, nodeAddrs)
	}
	return pl.wanted, pl.conflicts
}

type planner struct {
	zone      string // this node's
	wanted    map[listenKey]*target
	conflicts []conflict
	current   func(listenKey) string
	reserved  map[listenKey]bool
	isService func(netip.Addr) bool
}

func (pl *planner) service(s *Service, node string, nodeAddrs []netip.Addr) {
	owner := s.Namespace + "/" + s.Name
	if s.HealthPort != 0 {
		to := &target{group: groupKey{owner: owner, port: "health check"}, health: &health{s.Namespace, s.Name, localEndpoints(s, node)}}
		for _, ip := range nodeAddrs {
			pl.want(TCP, ip, s.HealthPort, to)
		}
	}
	for _, port := range s.Ports {
		group := groupKey{owner: owner, port: cmp.Or(port.Name, fmt.Sprint(port.Port)+string(port.Protocol))}
		affinity := time.Duration(s.AffinitySeconds) * time.Second
		inside := &target{group: group, endpoints: usable(s, port, node, pl.zone, s.LocalOnlyInternal), affinity: affinity}
		outside := inside
		if s.LocalOnlyExternal != s.LocalOnlyInternal {
			outside = &target{group: group, endpoints: usable(s, port, node, pl.zone, s.LocalOnlyExternal), affinity: affinity}
		}
		for _, ip := range s.ClusterIPs {
			pl.want(port.Protocol, ip, port.Port, inside)
		}
		for _, ip := range s.ExternalIPs {
			if pl.isService(ip.Unmap()) {
				pl.conflicts = append(pl.conflicts, conflict{key: listenKey{port.Protocol, netip.AddrPortFrom(ip.Unmap(), port.Port)},
					loser: owner, winner: serviceNetwork})
				continue
			}
			pl.want(port.Protocol, ip, port.Port, outside)
		}
		balanced := outside
		if s.Filtered {
			filtered := *outside
			filtered.filtered, filtered.sources = true, s.SourceRanges
			balanced = &filtered
		}
		for _, ip := range nodeAddrs {
			if port.NodePort != 0 {
				pl.want(port.Protocol, ip, port.NodePort, outside)
			}
			if s.LoadBalancer && !ip.IsLoopback() { // programs of the node's own like its loopback's usual ports
				pl.want(port.Protocol, ip, port.Port, balanced)
			}
		}
	}
}

// serviceNetwork has won an address that is one of its own.
const serviceNetwork = "(the service network)"

func (pl *planner) hostPort(h HostPort, nodeAddrs []netip.Addr) {
	to := &target{group: groupKey{owner: "host port of pod " + h.Target.String()}, endpoints: []netip.AddrPort{h.Target}}
	addrs := []netip.Addr{h.HostIP}
	if !h.HostIP.IsValid() || h.HostIP.IsUnspecified() {
		addrs = nodeAddrs
	}
	for _, ip := range addrs {
		pl.want(h.Protocol, ip, h.Port, to)
	}
}

func (pl *planner) want(proto Protocol, ip netip.Addr, port uint16, to *target) {
	if !ip.IsValid() || port == 0 || (len(to.endpoints) == 0 && to.health == nil) || (proto != TCP && proto != UDP) {
		return
	}
	key := listenKey{proto, netip.AddrPortFrom(ip.Unmap(), port)}
	if pl.reserved[key] {
		return
	}
	other, taken := pl.wanted[key]
	switch {
	case !taken:
		pl.wanted[key] = to
	case other.group == to.group: // a Service that names an address twice
	case pl.current(key) == to.owner() && other.owner() != to.owner():
		pl.wanted[key] = to
		pl.conflicts = append(pl.conflicts, conflict{key, other.owner(), to.owner()})
	default:
		pl.conflicts = append(pl.conflicts, conflict{key, to.owner(), other.owner()})
	}
}

// usable lists the endpoints that take new connections: the ready ones, of these the near ones if the Service has hints; if there is
// none, those that terminate but still serve, as kube-proxy does, so that a rollout which is down to its last old pods does not
// refuse anyone.
func usable(s *Service, port Port, node, zone string, localOnly bool) []netip.AddrPort {
	var ready, last []netip.AddrPort
	var hints []topology.Hints // of ready
	for _, e := range s.Endpoints {
		n := e.Ports[port.Name]
		if n == 0 || !e.Addr.IsValid() || (localOnly && e.Node != node) {
			continue
		}
		to := netip.AddrPortFrom(e.Addr.Unmap(), n)
		switch {
		case e.Ready || s.PublishNotReady:
			ready, hints = append(ready, to), append(hints, e.Hints)
		case e.Serving && e.Terminating:
			last = append(last, to)
		}
	}
	if len(ready) == 0 {
		ready = last
	} else if !localOnly {
		ready = topology.Near(ready, hints, node, zone)
	}
	slices.SortFunc(ready, netip.AddrPort.Compare)
	return slices.Compact(ready)
}
