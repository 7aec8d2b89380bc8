package podnet

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The kernel's 32-bit registers begin at 8; a concatenation is loaded into consecutive ones.
const firstRegister = 8

// ct states as bits of the register.
const ctEstablishedRelated = 1<<1 | 1<<2

// family is where an address family has its fields.
type family struct {
	is4                bool
	protocol           uint32 // for NAT
	srcOffset, dstSize uint32
	dstOffset          uint32
	icmp               byte
	addrType           nftables.SetDatatype
}

func familyOf(is4 bool) family {
	if is4 {
		return family{true, unix.NFPROTO_IPV4, 12, 4, 16, unix.IPPROTO_ICMP, nftables.TypeIPAddr}
	}
	return family{false, unix.NFPROTO_IPV6, 8, 16, 24, unix.IPPROTO_ICMPV6, nftables.TypeIP6Addr}
}

// socketSet is the set of addresses with a listener.
func socketSet(t *nftables.Table, is4 bool) *nftables.Set {
	return &nftables.Set{Table: t, Name: "sockets", Concatenation: true,
		KeyType: nftables.MustConcatSetType(familyOf(is4).addrType, nftables.TypeInetProto, nftables.TypeInetService)}
}

// element is the key as the set has it: each part padded to 32 bits.
func (k socketKey) element() nftables.SetElement {
	b := slices.Clone(k.addr.AsSlice())
	b = append(b, protocolNumber(k.udp), 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, k.port)
	return nftables.SetElement{Key: append(b, 0, 0)}
}

func protocolNumber(udp bool) byte {
	if udp {
		return unix.IPPROTO_UDP
	}
	return unix.IPPROTO_TCP
}

// writeGuard makes chains and rules of the guard.
func writeGuard(c *nftables.Conn, t *nftables.Table, sockets *nftables.Set, bridge string, want guardRules) error {
	f := familyOf(t.Family == nftables.TableFamilyIPv4)
	input := c.AddChain(&nftables.Chain{Name: "input", Table: t, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFilter})
	rule := func(ch *nftables.Chain, parts ...[]expr.Any) {
		c.AddRule(&nftables.Rule{Table: t, Chain: ch, Exprs: slices.Concat(parts...)})
	}
	accept, drop := verdict(expr.VerdictReturn), verdict(expr.VerdictDrop)
	tcpReset, unreachable := drop, drop
	if want.reject {
		tcpReset = []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}}
		code := uint8(3) // port unreachable
		if !f.is4 {
			code = 4
		}
		unreachable = []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: code}}
	}
	for _, p := range want.networks {
		to := inPrefix(f.dstOffset, p)
		rule(input, to, notFrom("lo"), notFrom(bridge), drop)
		rule(input, to, established(), accept)
		rule(input, to, inSockets(f, sockets), accept)
		rule(input, to, ofProtocol(f.icmp), accept)
		rule(input, to, ofProtocol(unix.IPPROTO_TCP), tcpReset)
		rule(input, to, unreachable)
	}
	if err := vxlanRules(c, t, input, f, want.peers, rule); err != nil {
		return err
	}
	if len(want.moved) == 0 {
		return nil
	}
	for _, ch := range []*nftables.Chain{
		{Name: "prerouting", Hooknum: nftables.ChainHookPrerouting},
		{Name: "output", Hooknum: nftables.ChainHookOutput},
	} {
		ch.Table, ch.Type, ch.Priority = t, nftables.ChainTypeNAT, nftables.ChainPriorityNATDest
		ch = c.AddChain(ch)
		for _, s := range want.moved {
			rule(ch, inPrefix(f.dstOffset, netip.PrefixFrom(s.Addr, s.Addr.BitLen())), ofProtocol(protocolNumber(s.UDP)),
				toPort(s.Port), translate(f, s.Addr, s.At))
		}
	}
	return nil
}

// vxlanRules accept our VXLAN from peers only; another one on the same port is its owner's affair.
func vxlanRules(c *nftables.Conn, t *nftables.Table, input *nftables.Chain, f family, peers []netip.Addr, rule func(*nftables.Chain, ...[]expr.Any)) error {
	set := &nftables.Set{Table: t, Name: "peers", KeyType: f.addrType}
	var elements []nftables.SetElement
	for _, a := range peers {
		elements = append(elements, nftables.SetElement{Key: a.AsSlice()})
	}
	if err := c.AddSet(set, elements[:min(len(elements), elementsPerMessage)]); err != nil {
		return fmt.Errorf("podnet nftables: %w", err)
	}
	for more := range slices.Chunk(elements[min(len(elements), elementsPerMessage):], elementsPerMessage) {
		if err := c.SetAddElements(set, more); err != nil {
			return fmt.Errorf("podnet nftables: %w", err)
		}
	}
	rule(input, ofProtocol(unix.IPPROTO_UDP), toPort(vxlanPort), ofVXLAN(vxlanID), []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: f.srcOffset, Len: f.dstSize},
		&expr.Lookup{SourceRegister: 1, SetName: set.Name, SetID: set.ID, Invert: true},
	}, verdict(expr.VerdictDrop))
	return nil
}

func verdict(kind expr.VerdictKind) []expr.Any { return []expr.Any{&expr.Verdict{Kind: kind}} }

// notFrom matches packets that did not come in through an interface.
func notFrom(iface string) []expr.Any {
	name := make([]byte, unix.IFNAMSIZ)
	copy(name, iface)
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: name},
	}
}

// established matches packets of connections that were let in before.
func established() []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(ctEstablishedRelated), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
	}
}

func ofProtocol(number byte) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{number}},
	}
}

// toPort matches the destination port, which TCP and UDP have at the same place.
func toPort(port uint16) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binary.BigEndian.AppendUint16(nil, port)},
	}
}

// ofVXLAN matches the network identifier of a VXLAN header (RFC 7348): 24 bits at 4, after the UDP header.
func ofVXLAN(id uint32) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 12, Len: 3},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binary.BigEndian.AppendUint32(nil, id)[1:]},
	}
}

// inSockets matches packets to an address, protocol and port that are in the set.
func inSockets(f family, set *nftables.Set) []expr.Any {
	next := firstRegister + f.dstSize/4
	return []expr.Any{
		&expr.Payload{DestRegister: firstRegister, Base: expr.PayloadBaseNetworkHeader, Offset: f.dstOffset, Len: f.dstSize},
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: next},
		&expr.Payload{DestRegister: next + 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Lookup{SourceRegister: firstRegister, SetName: set.Name, SetID: set.ID},
	}
}

// translate gives packets another destination port.
func translate(f family, addr netip.Addr, port uint16) []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: 1, Data: addr.AsSlice()},
		&expr.Immediate{Register: 2, Data: binary.BigEndian.AppendUint16(nil, port)},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: f.protocol, RegAddrMin: 1, RegProtoMin: 2},
	}
}
