package node

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// nodeBits is the size of a node's pod network: 254 addresses, and a mask that people can read.
const nodeBits = 24

// allocator cuts the cluster's pod network into one /24 for each node. It goes round: a network that a node has left is
// taken again only after all others, since a dark node whose object was deleted may go on using it for a while.
type allocator struct {
	cluster netip.Prefix
	next    uint32
}

func newAllocator(cluster netip.Prefix) (*allocator, error) {
	if !cluster.IsValid() || !cluster.Addr().Is4() || cluster.Bits() > nodeBits {
		return nil, fmt.Errorf("pod network %s: need an IPv4 network of at least /%d, for example 10.42.0.0/16", cluster, nodeBits)
	}
	return &allocator{cluster: cluster.Masked()}, nil
}

// size is how many nodes there is room for.
func (a *allocator) size() uint32 { return 1 << (nodeBits - a.cluster.Bits()) }

func (a *allocator) at(i uint32) netip.Prefix {
	base := a.cluster.Addr().As4()
	n := binary.BigEndian.Uint32(base[:]) + i<<(32-nodeBits)
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], n)
	return netip.PrefixFrom(netip.AddrFrom4(b), nodeBits)
}

// free returns a network that overlaps none of the used ones.
func (a *allocator) free(used []netip.Prefix) (netip.Prefix, error) {
	taken := make(map[netip.Addr]bool, len(used))
	var odd []netip.Prefix // given by hand, of another size
	for _, u := range used {
		if u.Bits() == nodeBits {
			taken[u.Masked().Addr()] = true
		} else {
			odd = append(odd, u)
		}
	}
	for range a.size() {
		p := a.at(a.next)
		a.next = (a.next + 1) % a.size()
		if taken[p.Addr()] {
			continue
		}
		clash := false
		for _, u := range odd {
			clash = clash || u.Overlaps(p)
		}
		if !clash {
			return p, nil
		}
	}
	return netip.Prefix{}, fmt.Errorf("pod network %s has room for %d nodes and all of it is in use: delete Nodes that are gone for good, or start the hub with a larger network", a.cluster, a.size())
}
