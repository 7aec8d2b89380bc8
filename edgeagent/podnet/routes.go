package podnet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"petrel.dev/petrel/internal/wire"
)

// routeProtocol marks our routes in the kernel, as routing daemons do (see /etc/iproute2/rt_protos; 80 is nobody's).
const routeProtocol = 80

// peerProblem begins the subject of problems with one peer.
const peerProblem = "peer "

// peer is another node after its strings have been understood.
type peer struct {
	name  string
	cidrs []netip.Prefix
	addrs []netip.Addr
}

// path is how one peer's pods are reached.
type path struct {
	peer peer
	via  netip.Addr // the peer's address
	link int        // index of the interface towards it; 0: through VXLAN
}

// parsePeer reads a peer; peers that overlap with this node's own pod network are reported as such.
func parsePeer(w wire.Peer, own []netip.Prefix) (p peer, self bool, err error) {
	p.name = w.Name
	for _, s := range w.PodCIDR {
		c, err := netip.ParsePrefix(s)
		if err != nil || hostBits(c) < 2 {
			return p, false, fmt.Errorf("pod network %q is not a usable CIDR", s)
		}
		for _, o := range own {
			if o.Overlaps(c) {
				return p, true, nil
			}
		}
		p.cidrs = append(p.cidrs, c.Masked())
	}
	for _, s := range w.Address {
		if a, err := netip.ParseAddr(s); err == nil && !a.IsUnspecified() && !a.IsLoopback() {
			p.addrs = append(p.addrs, a.Unmap())
		}
	}
	if len(p.cidrs) > 0 && len(p.addrs) == 0 {
		return p, false, errors.New("it reported no address")
	}
	return p, false, nil
}

// reach decides the path to a peer: over the LAN when one of its addresses is a direct neighbour on an Ethernet-like
// link, otherwise through VXLAN to the first address that there is a route to.
func (n *Network) reach(p peer) (path, error) {
	var far netip.Addr
	for _, a := range p.addrs {
		routes, err := n.nl.RouteGet(a.AsSlice())
		if err != nil || len(routes) == 0 {
			continue
		}
		r := routes[0]
		if r.Type == unix.RTN_LOCAL {
			return path{}, fmt.Errorf("its address %v is this node's own; two machines must not share one", a)
		}
		if r.Type != unix.RTN_UNICAST {
			continue
		}
		sameFamily := !slices.ContainsFunc(p.cidrs, func(c netip.Prefix) bool { return c.Addr().Is4() != a.Is4() })
		if r.Gw == nil && sameFamily && n.isEthernet(r.LinkIndex) {
			return path{peer: p, via: a, link: r.LinkIndex}, nil
		}
		if !far.IsValid() {
			far = a
		}
	}
	if !far.IsValid() {
		return path{}, fmt.Errorf("no route to its addresses %v", p.addrs)
	}
	return path{peer: p, via: far}, nil
}

// isEthernet reports whether the link carries packets with any address. A tunnel (WireGuard, PPP) drops those with addresses
// that it does not know, so a plain route to another node's pods through it does not work.
func (n *Network) isEthernet(index int) bool {
	l, err := n.nl.LinkByIndex(index)
	if err != nil {
		return false
	}
	f := l.Attrs().RawFlags
	return f&unix.IFF_BROADCAST != 0 && f&(unix.IFF_NOARP|unix.IFF_POINTOPOINT) == 0
}

// route makes the routes to all peers and removes those to former ones. The caller holds mu.
func (n *Network) route(ctx context.Context) error {
	for k := range n.problems {
		if strings.HasPrefix(k, peerProblem) {
			delete(n.problems, k)
		}
	}
	var paths []path
	var errs []error
	fail := func(name string, err error) {
		n.problems[peerProblem+name] = err.Error()
		errs = append(errs, fmt.Errorf("podnet route to node %s: %w", name, err))
	}
	for _, w := range n.peers {
		if err := ctx.Err(); err != nil {
			return err
		}
		p, self, err := parsePeer(w, n.podCIDRs)
		if self || (err == nil && len(p.cidrs) == 0) {
			continue
		}
		var to path
		if err == nil {
			to, err = n.reach(p)
		}
		if err != nil {
			fail(w.Name, err)
			continue
		}
		paths = append(paths, to)
	}
	vxlan, err := n.ensureVXLAN(paths)
	if err != nil {
		errs = append(errs, err)
	}
	wanted := map[netip.Prefix]bool{}
	for _, to := range paths {
		if to.link == 0 && vxlan == nil {
			fail(to.peer.name, errors.New("it is not on this LAN, and VXLAN is not available"))
			continue
		}
		for _, c := range to.peer.cidrs {
			wanted[c] = true
			if err := n.nl.RouteReplace(n.routeTo(to, c, vxlan)); err != nil {
				fail(to.peer.name, explain(err))
			}
		}
	}
	errs = append(errs, n.prune(wanted))
	return errors.Join(errs...)
}

// routeTo is the kernel route for one podCIDR of a path. Its source address is the bridge's, which the peer has a route
// back to in every case.
func (n *Network) routeTo(to path, c netip.Prefix, vxlan netlink.Link) *netlink.Route {
	r := &netlink.Route{Dst: ipNet(c), Protocol: routeProtocol, LinkIndex: to.link, Gw: to.via.AsSlice()}
	if to.link == 0 {
		r.LinkIndex, r.Gw, r.Flags = vxlan.Attrs().Index, gateway(c).AsSlice(), int(netlink.FLAG_ONLINK)
	}
	for _, own := range n.podCIDRs {
		if own.Addr().Is4() == c.Addr().Is4() {
			r.Src = gateway(own).AsSlice()
		}
	}
	return r
}

// prune removes our routes that are not wanted.
func (n *Network) prune(wanted map[netip.Prefix]bool) error {
	ours, err := n.nl.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Protocol: routeProtocol}, netlink.RT_FILTER_PROTOCOL)
	if err != nil {
		return fmt.Errorf("podnet list routes: %w", err)
	}
	var errs []error
	for _, r := range ours {
		c, ok := prefixOf(r.Dst)
		if !ok || wanted[c] || !n.mine(r) {
			continue
		}
		if err := n.nl.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, fmt.Errorf("podnet remove route to %v: %w", c, err))
		}
	}
	return errors.Join(errs...)
}

// mine reports whether a route is this Network's, not another's in the same namespace (another bridge): by its source address.
func (n *Network) mine(r netlink.Route) bool {
	src, ok := netip.AddrFromSlice(r.Src)
	if !ok {
		return false
	}
	return slices.ContainsFunc(n.podCIDRs, func(c netip.Prefix) bool { return gateway(c) == src.Unmap() })
}

// localServices makes the service networks local (AnyIP), and lo, where they end, up.
func (n *Network) localServices() error {
	lo, err := n.link("lo")
	if err != nil || lo == nil {
		return fmt.Errorf("podnet: no loopback interface: %w", err)
	}
	if err := n.nl.LinkSetUp(lo); err != nil {
		return fmt.Errorf("podnet bring up lo: %w", explain(err))
	}
	want := map[netip.Prefix]bool{}
	for _, c := range n.cfg.ServiceCIDRs {
		want[c.Masked()] = true
		if err := n.nl.RouteReplace(anyIP(c.Masked(), lo.Attrs().Index)); err != nil {
			return fmt.Errorf("podnet make service network %v local: %w", c, explain(err))
		}
	}
	return n.pruneAnyIP(want)
}

func anyIP(c netip.Prefix, lo int) *netlink.Route {
	r := &netlink.Route{Dst: ipNet(c), LinkIndex: lo, Type: unix.RTN_LOCAL, Table: unix.RT_TABLE_LOCAL, Protocol: routeProtocol}
	if c.Addr().Is4() {
		r.Scope = netlink.SCOPE_HOST
	}
	return r
}

func (n *Network) pruneAnyIP(want map[netip.Prefix]bool) error {
	filter := &netlink.Route{Table: unix.RT_TABLE_LOCAL, Protocol: routeProtocol}
	ours, err := n.nl.RouteListFiltered(netlink.FAMILY_ALL, filter, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_PROTOCOL)
	if err != nil {
		return fmt.Errorf("podnet list local routes: %w", err)
	}
	var errs []error
	for _, r := range ours {
		if c, ok := prefixOf(r.Dst); ok && !want[c] {
			if err := n.nl.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
				errs = append(errs, fmt.Errorf("podnet remove local route %v: %w", c, err))
			}
		}
	}
	return errors.Join(errs...)
}

// removeRoutes takes back all routes. Those to peers of a Network that this process never set up vanish with the bridge,
// whose addresses are their source.
func (n *Network) removeRoutes() error {
	return errors.Join(n.prune(nil), n.pruneAnyIP(nil))
}

// sameMAC compares by value.
func sameMAC(a, b net.HardwareAddr) bool { return a.String() == b.String() }
