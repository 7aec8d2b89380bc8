package podnet

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// A pod may send from its own IPv4 addresses only, and claim only those by ARP: NET_RAW, a default capability, lets it write
// any. A table of the bridge family, next to the guard, has a set of (port of the bridge, address). Kernels without that
// family go without, as they do elsewhere: it is a second line of defence, so that is no problem to report.

// ARP has the sender's address after 8 bytes of header and its hardware address.
const arpSenderOffset = 14

// sender is a pod's end of the bridge with an address that it may use.
type sender struct {
	port string
	addr netip.Addr
}

// element is the sender as the set has it: the name padded to 16 bytes, and the address.
func (s sender) element() nftables.SetElement {
	key := make([]byte, unix.IFNAMSIZ, unix.IFNAMSIZ+4)
	copy(key, s.port)
	return nftables.SetElement{Key: append(key, s.addr.AsSlice()...)}
}

func (n *Network) spoofTable() *nftables.Table {
	return &nftables.Table{Name: n.guardTable(true).Name, Family: nftables.TableFamilyBridge}
}

func (n *Network) senderSet() *nftables.Set {
	return &nftables.Set{Table: n.spoofTable(), Name: "senders", Concatenation: true,
		KeyType: nftables.MustConcatSetType(nftables.TypeIFName, nftables.TypeIPAddr)}
}

// ensureSenders writes the table anew, for all addresses on record. The caller holds mu.
func (n *Network) ensureSenders() {
	owners, err := n.owners()
	if err != nil {
		return // the next look finds out more
	}
	var all []nftables.SetElement
	n.senders = map[sender]bool{}
	for a, uid := range owners {
		if a.Is4() {
			s := sender{vethName(uid), a}
			n.senders[s] = true
			all = append(all, s.element())
		}
	}
	c, err := n.nft()
	if err == nil {
		err = n.writeSenders(c, all)
	}
	n.antispoof = err == nil
	if err != nil && !n.spoofWarn {
		n.spoofWarn = true
		n.log.Info("pods can send from each other's addresses: the kernel has no nftables for bridges", "error", err)
	}
}

func (n *Network) writeSenders(c *nftables.Conn, all []nftables.SetElement) error {
	t, set := n.spoofTable(), n.senderSet()
	c.AddTable(t) // so that deleting it cannot fail
	c.DelTable(t)
	c.AddTable(t)
	first := all[:min(len(all), elementsPerMessage)]
	if err := c.AddSet(set, first); err != nil {
		return err
	}
	for more := range slices.Chunk(all[len(first):], elementsPerMessage) {
		if err := c.SetAddElements(set, more); err != nil {
			return err
		}
	}
	chain := c.AddChain(&nftables.Chain{Name: "prerouting", Table: t, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityFilter})
	rule := func(parts ...[]expr.Any) {
		c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: slices.Concat(parts...)})
	}
	const ipSource = 12
	// Who looks whether an address is free says that it has none.
	rule(onBridge(n.cfg.Bridge), ofEtherType(unix.ETH_P_ARP), addressIs(arpSenderOffset, netip.IPv4Unspecified()), verdict(expr.VerdictReturn))
	rule(onBridge(n.cfg.Bridge), ofEtherType(unix.ETH_P_ARP), notSender(arpSenderOffset, set), verdict(expr.VerdictDrop))
	rule(onBridge(n.cfg.Bridge), ofEtherType(unix.ETH_P_IP), notSender(ipSource, set), verdict(expr.VerdictDrop))
	return c.Flush()
}

// allowSender lets a pod send from its addresses, before its port comes up. The caller holds mu.
func (n *Network) allowSender(podUID string, ips []netip.Addr) {
	var more []nftables.SetElement
	for _, a := range ips {
		if s := (sender{vethName(podUID), a}); a.Is4() && !n.senders[s] {
			more = append(more, s.element())
			defer func() { n.senders[s] = true }()
		}
	}
	if !n.antispoof || len(more) == 0 {
		return
	}
	if err := n.changeSenders(func(c *nftables.Conn, set *nftables.Set) error { return c.SetAddElements(set, more) }); err != nil {
		n.ensureSenders() // somebody has flushed the ruleset; the records have this pod
	}
}

// forgetSender takes a pod's addresses out, which another pod may get. The caller holds mu.
func (n *Network) forgetSender(podUID string) {
	port := vethName(podUID)
	var less []nftables.SetElement
	for s := range n.senders {
		if s.port == port {
			less = append(less, s.element())
			delete(n.senders, s)
		}
	}
	if !n.antispoof || len(less) == 0 {
		return
	}
	// An element that stays behind names a port that is gone.
	_ = n.changeSenders(func(c *nftables.Conn, set *nftables.Set) error { return c.SetDeleteElements(set, less) })
}

func (n *Network) changeSenders(change func(*nftables.Conn, *nftables.Set) error) error {
	c, err := n.nft()
	if err != nil {
		return err
	}
	if err := change(c, n.senderSet()); err != nil {
		return fmt.Errorf("podnet nftables: %w", err)
	}
	return c.Flush()
}

// onBridge matches frames that came in through a port of the bridge.
func onBridge(bridge string) []expr.Any {
	name := make([]byte, unix.IFNAMSIZ)
	copy(name, bridge)
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyBRIIIFNAME, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: name},
	}
}

func ofEtherType(number uint16) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyPROTOCOL, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binary.BigEndian.AppendUint16(nil, number)},
	}
}

func addressIs(offset uint32, a netip.Addr) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: a.AsSlice()},
	}
}

// notSender matches frames whose port and address at offset are not in the set.
func notSender(offset uint32, set *nftables.Set) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: firstRegister},
		&expr.Payload{DestRegister: firstRegister + unix.IFNAMSIZ/4, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4},
		&expr.Lookup{SourceRegister: firstRegister, SetName: set.Name, SetID: set.ID, Invert: true},
	}
}
