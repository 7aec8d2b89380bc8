package podnet

import (
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"petrel.dev/petrel/internal/wire"
)

const masqueradeProblem = "masquerade"

// masquerade gives packets of pods that leave the cluster the node's address, in a table of our own. A kernel without
// nftables costs pods the world outside, not each other, so it is a problem to report and not an error. The caller
// holds mu.
func (n *Network) masquerade() {
	err := n.writeTables()
	if err == nil {
		delete(n.problems, masqueradeProblem)
		n.nftWarn = false
		return
	}
	n.problems[masqueradeProblem] = err.Error()
	if !n.nftWarn {
		n.nftWarn = true
		n.log.Warn("pods cannot reach networks outside the cluster: the kernel refused the masquerade rule (is the nf_tables module there?); pods and Services work",
			"table", n.cfg.Bridge, "error", err)
	}
}

// exempt lists the destinations that keep the pod's own address: the smallest set that covers all pod networks of one
// family.
func exempt(is4 bool, own, cluster []netip.Prefix, peers []wire.Peer) []netip.Prefix {
	var all []netip.Prefix
	add := func(p netip.Prefix) {
		if p.IsValid() && p.Addr().Is4() == is4 {
			all = append(all, p.Masked())
		}
	}
	for _, p := range slices.Concat(own, cluster) {
		add(p)
	}
	for _, w := range peers {
		for _, s := range w.PodCIDR {
			if p, err := netip.ParsePrefix(s); err == nil {
				add(p)
			}
		}
	}
	slices.SortFunc(all, func(a, b netip.Prefix) int {
		if a.Bits() != b.Bits() {
			return a.Bits() - b.Bits()
		}
		return a.Addr().Compare(b.Addr())
	})
	var out []netip.Prefix
	for _, p := range all {
		if !slices.ContainsFunc(out, func(o netip.Prefix) bool { return o.Overlaps(p) }) {
			out = append(out, p)
		}
	}
	return out
}

func (n *Network) nft() (*nftables.Conn, error) {
	c, err := nftables.New(nftables.WithNetNSFd(int(n.home)))
	if err != nil {
		return nil, fmt.Errorf("podnet nftables: %w", explain(err))
	}
	return c, nil
}

// writeTables replaces our table in one transaction, so that there is no moment without it.
func (n *Network) writeTables() error {
	c, err := n.nft()
	if err != nil {
		return err
	}
	for _, is4 := range []bool{true, false} {
		var own []netip.Prefix
		for _, p := range n.podCIDRs {
			if p.Addr().Is4() == is4 {
				own = append(own, p)
			}
		}
		if len(own) > 0 {
			n.writeTable(c, is4, own)
		}
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("podnet nftables: %w", explain(err))
	}
	return nil
}

func (n *Network) writeTable(c *nftables.Conn, is4 bool, own []netip.Prefix) {
	table := n.table(is4)
	c.AddTable(table) // so that deleting it cannot fail
	c.DelTable(table)
	c.AddTable(table)
	chain := c.AddChain(&nftables.Chain{Name: "postrouting", Table: table, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource})
	// ip6 headers have their addresses at 8 and 24.
	src, dst := uint32(12), uint32(16)
	if !is4 {
		src, dst = 8, 24
	}
	for _, p := range exempt(is4, own, n.cfg.ClusterCIDRs, n.peers) {
		c.AddRule(&nftables.Rule{Table: table, Chain: chain,
			Exprs: append(inPrefix(dst, p), &expr.Verdict{Kind: expr.VerdictReturn})})
	}
	// Multicast and limited broadcast stay as they are.
	for _, p := range []string{"224.0.0.0/4", "255.255.255.255/32", "ff00::/8"} {
		if p := netip.MustParsePrefix(p); p.Addr().Is4() == is4 {
			c.AddRule(&nftables.Rule{Table: table, Chain: chain,
				Exprs: append(inPrefix(dst, p), &expr.Verdict{Kind: expr.VerdictReturn})})
		}
	}
	for _, p := range own {
		c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: append(inPrefix(src, p), &expr.Masq{})})
	}
}

// inPrefix matches packets whose address at offset is in p.
func inPrefix(offset uint32, p netip.Prefix) []expr.Any {
	size := uint32(p.Addr().BitLen() / 8)
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: size},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: size,
			Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen()), Xor: make([]byte, size)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: p.Masked().Addr().AsSlice()},
	}
}

func (n *Network) table(is4 bool) *nftables.Table {
	family := nftables.TableFamilyIPv4
	if !is4 {
		family = nftables.TableFamilyIPv6
	}
	return &nftables.Table{Name: n.cfg.Bridge, Family: family}
}

func (n *Network) removeTables() error {
	c, err := n.nft()
	if err != nil {
		return nil // there is nothing to remove where nothing can be made
	}
	tables, err := c.ListTables()
	if err != nil {
		return nil
	}
	for _, t := range tables {
		ours := t.Name == n.cfg.Bridge || t.Name == n.guardTable(true).Name
		if ours && slices.Contains([]nftables.TableFamily{nftables.TableFamilyIPv4, nftables.TableFamilyIPv6, nftables.TableFamilyNetdev}, t.Family) {
			c.DelTable(t)
		}
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("podnet remove nftables table %s: %w", n.cfg.Bridge, explain(err))
	}
	return nil
}
