package podnet

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

const guardProblem = "service guard"

// ServiceSocket is an address of the service networks at which this node serves.
type ServiceSocket struct {
	Addr netip.Addr
	UDP  bool
	Port uint16
	// At is the port that the socket really has: another than Port when a program of this node has Port on all its
	// addresses. Packets to Port are led there.
	At uint16
}

// The service networks are local to the node (AnyIP), so without a guard a program of the node that listens on all addresses
// answers at every service address that has no listener of its own, and to everyone who can send packets to the node:
//
//	to a service network    from lo or the bridge, a port with a listener → it; any other port → refused
//	                        from elsewhere → dropped: Services are for pods and the node itself
//	UDP 4789, our VXLAN     from an address of a peer → accepted, else dropped
//
// The guard is a table of its own, next to that of masquerading: it is changed with each Service, and replacing it as a
// whole would refuse packets for a moment.
//
// guardState is what is in the kernel for one address family.
type guardState struct {
	rules    guardRules
	sockets  map[socketKey]bool
	complete bool // false: write it all again
}

// guardRules is what the rules depend on; sockets that are where they should be are elements of a set instead.
type guardRules struct {
	networks []netip.Prefix
	moved    []ServiceSocket
	peers    []netip.Addr
	reject   bool // false: the kernel can only drop
}

func (r guardRules) equal(o guardRules) bool {
	return slices.Equal(r.networks, o.networks) && slices.Equal(r.moved, o.moved) && slices.Equal(r.peers, o.peers) && r.reject == o.reject
}

// socketKey is an element of the set: where packets arrive.
type socketKey struct {
	addr netip.Addr
	udp  bool
	port uint16
}

// SetServiceSockets sets where in the service networks this node serves; everything else in them is refused. Until the
// first call all of it is. The error says that the kernel cannot do it: then sockets that are at another port than their
// own are out of reach, and what has no socket is open to the node's own programs. Problems says so too.
func (n *Network) SetServiceSockets(sockets []ServiceSocket) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.sockets = slices.Clone(sockets)
	if err := n.open(); err != nil {
		return err
	}
	return n.guard(false)
}

// guard brings the guard to what is wanted. With check it makes sure first that the kernel still has it. The caller holds mu.
func (n *Network) guard(check bool) error {
	var errs []error
	for _, is4 := range []bool{true, false} {
		if !is4 && !n.usesIPv6() {
			continue
		}
		errs = append(errs, n.guardFamily(is4, check))
	}
	err := errors.Join(errs...)
	if err == nil {
		delete(n.problems, guardProblem)
		return nil
	}
	reason := fmt.Sprintf("programs of this node that listen on all addresses answer at service addresses, for the LAN too, and VXLAN packets are accepted from any address: the kernel refused the nftables rules that prevent it (is the nf_tables module there?): %v", err)
	if n.problems[guardProblem] == "" {
		n.log.Warn("service addresses are not guarded: the kernel refused the rules (are the modules nf_tables, nft_ct, nft_reject and nft_nat there?)", "error", err)
	}
	n.problems[guardProblem] = reason
	return err
}

// usesIPv6 reports whether service networks or pods have IPv6, or the node itself, where VXLAN packets can come in.
func (n *Network) usesIPv6() bool {
	for _, p := range slices.Concat(n.cfg.ServiceCIDRs, n.podCIDRs) {
		if p.Addr().Is6() {
			return true
		}
	}
	addrs, err := n.nl.AddrList(nil, unix.AF_INET6)
	return err == nil && len(addrs) > 1 // more than ::1
}

func (n *Network) guardFamily(is4, check bool) error {
	state := &n.guards[0]
	if !is4 {
		state = &n.guards[1]
	}
	want := guardRules{peers: n.peerAddrs(is4), reject: !n.noReject}
	for _, p := range n.cfg.ServiceCIDRs {
		if p.Addr().Is4() == is4 {
			want.networks = append(want.networks, p.Masked())
		}
	}
	sockets := map[socketKey]bool{}
	for _, s := range n.sockets {
		if s.Addr.Is4() != is4 {
			continue
		}
		sockets[socketKey{s.Addr, s.UDP, s.At}] = true
		if s.At != s.Port {
			want.moved = append(want.moved, s)
		}
	}
	if state.complete && check && !n.guardThere(is4) {
		state.complete = false
	}
	var err error
	if state.complete && state.rules.equal(want) {
		err = n.updateSockets(is4, state, sockets)
	} else {
		err = n.rewriteGuard(is4, state, want, sockets)
		if err != nil && want.reject {
			want.reject = false
			if err2 := n.rewriteGuard(is4, state, want, sockets); err2 == nil {
				n.noReject, err = true, nil
				n.log.Info("the kernel cannot reject packets, so what has no Service behind it is dropped", "error", err)
			}
		}
	}
	return err
}

// peerAddrs are the addresses that VXLAN packets may come from, sorted.
func (n *Network) peerAddrs(is4 bool) []netip.Addr {
	var out []netip.Addr
	for _, w := range n.peers {
		p, self, err := parsePeer(w, n.podCIDRs)
		if self || err != nil {
			continue
		}
		for _, a := range p.addrs {
			if a = a.WithZone(""); a.Is4() == is4 {
				out = append(out, a)
			}
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

func (n *Network) guardTable(is4 bool) *nftables.Table {
	t := n.table(is4)
	t.Name += "-guard"
	return t
}

func (n *Network) guardThere(is4 bool) bool {
	c, err := n.nft()
	if err != nil {
		return false
	}
	t := n.guardTable(is4)
	_, err = c.ListTableOfFamily(t.Name, t.Family)
	return err == nil
}

// What one netlink message may carry, and what one send.
const (
	elementsPerMessage = 500
	elementsPerSend    = 2000
)

// updateSockets brings the set of sockets to what is wanted by its difference.
func (n *Network) updateSockets(is4 bool, state *guardState, want map[socketKey]bool) error {
	var more, less []nftables.SetElement
	for k := range want {
		if !state.sockets[k] {
			more = append(more, k.element())
		}
	}
	for k := range state.sockets {
		if !want[k] {
			less = append(less, k.element())
		}
	}
	if len(more)+len(less) == 0 {
		return nil
	}
	c, err := n.nft()
	if err != nil {
		return err
	}
	state.complete = false // until all of it has succeeded
	set := socketSet(n.guardTable(is4), is4)
	if err := sendElements(c, set, more, c.SetAddElements); err != nil {
		return err
	}
	if err := sendElements(c, set, less, c.SetDeleteElements); err != nil {
		return err
	}
	state.sockets, state.complete = want, true
	return nil
}

func sendElements(c *nftables.Conn, set *nftables.Set, all []nftables.SetElement, do func(*nftables.Set, []nftables.SetElement) error) error {
	for send := range slices.Chunk(all, elementsPerSend) {
		for message := range slices.Chunk(send, elementsPerMessage) {
			if err := do(set, message); err != nil {
				return fmt.Errorf("podnet nftables: %w", err)
			}
		}
		if err := c.Flush(); err != nil {
			return fmt.Errorf("podnet nftables: %w", explain(err))
		}
	}
	return nil
}

// rewriteGuard replaces the guard of one family in one transaction; what is more than that can hold follows. In between,
// connections that exist are not disturbed.
func (n *Network) rewriteGuard(is4 bool, state *guardState, want guardRules, sockets map[socketKey]bool) error {
	state.complete = false
	c, err := n.nft()
	if err != nil {
		return err
	}
	t := n.guardTable(is4)
	c.AddTable(t) // so that deleting it cannot fail
	c.DelTable(t)
	c.AddTable(t)
	set := socketSet(t, is4)
	var elements []nftables.SetElement
	for k := range sockets {
		elements = append(elements, k.element())
	}
	first := elements[:min(len(elements), elementsPerMessage)]
	if err := c.AddSet(set, first); err != nil {
		return fmt.Errorf("podnet nftables: %w", err)
	}
	if err := writeGuard(c, t, set, n.cfg.Bridge, want); err != nil {
		return err
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("podnet nftables: %w", explain(err))
	}
	if err := sendElements(c, set, elements[len(first):], c.SetAddElements); err != nil {
		return err
	}
	*state = guardState{rules: want, sockets: sockets, complete: true}
	return nil
}
