package podnet

import (
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
)

const (
	firewallProblem = "firewall"
	overlapProblem  = "overlap"
)

// lookForObstacles finds what others on this machine do that keeps pods from working, and says how to change it. It
// changes nothing itself: the firewall and the LAN are the owner's. The caller holds mu.
func (n *Network) lookForObstacles() {
	n.obstacle(overlapProblem, n.overlap())
	n.obstacle(firewallProblem, n.firewall())
}

func (n *Network) obstacle(subject, reason string) {
	if reason == "" {
		delete(n.problems, subject)
		return
	}
	if n.problems[subject] != reason {
		n.log.Warn("something on this machine is in the way of pods", "subject", subject, "reason", reason)
	}
	n.problems[subject] = reason
}

// overlap names a LAN that uses the addresses of pods or Services; from this node it is out of reach. "" means none.
func (n *Network) overlap() string {
	bridge, _ := n.link(n.cfg.Bridge)
	addrs, err := n.nl.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return ""
	}
	for _, a := range addrs {
		p, ok := prefixOf(a.IPNet)
		if !ok || bridge != nil && a.LinkIndex == bridge.Attrs().Index || p.Addr().IsLinkLocalUnicast() {
			continue
		}
		for _, c := range slices.Concat(n.podCIDRs, n.cfg.ServiceCIDRs, n.cfg.ClusterCIDRs) {
			if c.Overlaps(p) {
				return fmt.Sprintf("the cluster's network %v overlaps with %v of this machine's interface %s, so one of them is out of reach from here; give the LAN other addresses, or the cluster (a setting of the hub)",
					c, p.Masked(), n.linkName(a.LinkIndex))
			}
		}
	}
	return ""
}

func (n *Network) linkName(index int) string {
	if l, err := n.nl.LinkByIndex(index); err == nil {
		return l.Attrs().Name
	}
	return fmt.Sprint("#", index)
}

// firewall names a chain that drops forwarded packets by default, as Docker sets one up. It drops those of pods too, whatever
// our own table says. "" means none.
func (n *Network) firewall() string {
	if len(n.podCIDRs) == 0 {
		return ""
	}
	c, err := n.nft()
	if err != nil {
		return ""
	}
	chains, err := c.ListChains()
	if err != nil {
		return ""
	}
	for _, ch := range chains {
		if ch.Hooknum == nil || *ch.Hooknum != *nftables.ChainHookForward || ch.Policy == nil || *ch.Policy != nftables.ChainPolicyDrop || n.allows(c, ch) {
			continue
		}
		return fmt.Sprintf("the firewall drops forwarded packets by default (chain %s of table %s; Docker does that), so pods reach neither other nodes nor the world; allow them: iptables -I FORWARD -i %s -j ACCEPT; iptables -I FORWARD -o %[3]s -j ACCEPT",
			ch.Name, ch.Table.Name, n.cfg.Bridge)
	}
	return ""
}

// allows reports whether a chain has a rule that names our bridge: its owner has taken care.
func (n *Network) allows(c *nftables.Conn, ch *nftables.Chain) bool {
	rules, err := c.GetRules(ch.Table, ch)
	if err != nil {
		return false
	}
	for _, r := range rules {
		for _, e := range r.Exprs {
			if strings.Contains(fmt.Sprintf("%s", e), n.cfg.Bridge) {
				return true
			}
		}
	}
	return false
}
