package podnet

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// A pod may send from its own hardware and IP addresses only, and claim only those by ARP: NET_RAW, a default capability, lets
// it write any. A table of the netdev family has a chain for each pod, at the node's end of its veth pair. Kernels without
// that family go without, as pods do elsewhere: it is a second line of defence, so that is no problem to report.

const (
	llSourceOffset  = 6
	ip4SourceOffset = 12
	ip6SourceOffset = 8
	// ARP has the sender's address after 8 bytes of header and its hardware address.
	arpSenderOffset = 14
)

func (n *Network) senderTable() *nftables.Table {
	return &nftables.Table{Name: n.guardTable(true).Name, Family: nftables.TableFamilyNetdev}
}

// ensureSender holds a pod to its addresses. It is called before the pod's interface comes up, and again when the agent
// adopts the pod: the rules are replaced in one transaction. The caller holds mu.
func (n *Network) ensureSender(port string, mac net.HardwareAddr, ips []netip.Addr) {
	c, err := n.nft()
	if err == nil {
		t := c.AddTable(n.senderTable())
		chain := c.AddChain(&nftables.Chain{Name: port, Table: t, Type: nftables.ChainTypeFilter,
			Hooknum: nftables.ChainHookIngress, Priority: nftables.ChainPriorityFilter, Device: port})
		c.FlushChain(chain)
		for _, exprs := range senderRules(mac, ips) {
			c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: exprs})
		}
		err = c.Flush()
	}
	n.antispoof = err == nil
	if err != nil && !n.spoofWarn {
		n.spoofWarn = true
		n.log.Info("pods can send from each other's addresses: the kernel has no nftables for interfaces (nf_tables_netdev)", "error", err)
	}
}

// senderRules let pass what a pod may send, and drop the rest.
func senderRules(mac net.HardwareAddr, ips []netip.Addr) [][]expr.Any {
	pass, drop := verdict(expr.VerdictReturn), verdict(expr.VerdictDrop)
	arp, ip4, ip6 := ofEtherType(unix.ETH_P_ARP), ofEtherType(unix.ETH_P_IP), ofEtherType(unix.ETH_P_IPV6)
	rules := [][]expr.Any{
		append(payload(expr.PayloadBaseLLHeader, llSourceOffset, 6, expr.CmpOpNeq, mac), drop...),
		// Who looks whether an address is free says that it has none.
		slices.Concat(arp, networkIs(arpSenderOffset, netip.IPv4Unspecified()), pass),
		slices.Concat(ip6, networkIs(ip6SourceOffset, netip.IPv6Unspecified()), pass),
		slices.Concat(ip6, inPrefix(ip6SourceOffset, netip.MustParsePrefix("fe80::/10")), pass),
	}
	for _, a := range ips {
		if a.Is4() {
			rules = append(rules, slices.Concat(arp, networkIs(arpSenderOffset, a), pass),
				slices.Concat(ip4, networkIs(ip4SourceOffset, a), pass))
		} else {
			rules = append(rules, slices.Concat(ip6, networkIs(ip6SourceOffset, a), pass))
		}
	}
	for _, kind := range [][]expr.Any{arp, ip4, ip6} {
		rules = append(rules, slices.Concat(kind, drop))
	}
	return rules
}

// forgetSender removes a pod's chain; newer kernels keep it when its interface goes. The caller holds mu.
func (n *Network) forgetSender(port string) {
	n.pruneSenders(func(name string) bool { return name != port })
}

// pruneSenders removes the chains of ports that are not to be kept.
func (n *Network) pruneSenders(keep func(port string) bool) {
	c, err := n.nft()
	if err != nil {
		return
	}
	chains, err := c.ListChainsOfTableFamily(nftables.TableFamilyNetdev)
	if err != nil {
		return
	}
	for _, ch := range chains {
		if ch.Table.Name == n.senderTable().Name && !keep(ch.Name) {
			c.FlushChain(ch)
			c.DelChain(ch)
			if err := c.Flush(); err != nil {
				n.log.Debug("rules of a pod that is gone stay", "interface", ch.Name, "error", fmt.Errorf("podnet nftables: %w", err))
			}
		}
	}
}

func ofEtherType(number uint16) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyPROTOCOL, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binary.BigEndian.AppendUint16(nil, number)},
	}
}

func networkIs(offset uint32, a netip.Addr) []expr.Any {
	return payload(expr.PayloadBaseNetworkHeader, offset, uint32(a.BitLen()/8), expr.CmpOpEq, a.AsSlice())
}

func payload(base expr.PayloadBase, offset, size uint32, op expr.CmpOp, data []byte) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: base, Offset: offset, Len: size},
		&expr.Cmp{Op: op, Register: 1, Data: data},
	}
}
