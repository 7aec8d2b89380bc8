package node

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
)

// networks is the first job: every Node gets a pod network of its own, and keeps it. Its state is owned by the loop's worker.
type networks struct {
	reader control.Reader
	alloc  *allocator
	// allocated are the networks that the cache may not show yet, by node. An entry goes when the cache shows it, or with the Node.
	allocated map[string]netip.Prefix
}

func newNetworks(r control.Reader, cluster netip.Prefix) (*networks, error) {
	alloc, err := newAllocator(cluster)
	if err != nil {
		return nil, err
	}
	return &networks{reader: r, alloc: alloc, allocated: map[string]netip.Prefix{}}, nil
}

func (w *networks) forget(node string) { delete(w.allocated, node) }

// assign writes a network into n, the caller's copy of a Node, if it has none.
func (w *networks) assign(n *corev1.Node) error {
	if n.Spec.PodCIDR != "" {
		delete(w.allocated, n.Name)
		return nil
	}
	p, ok := w.allocated[n.Name]
	if !ok {
		var used []netip.Prefix
		for _, o := range control.List[*corev1.Node](w.reader, kube.Node, "") {
			if u, err := netip.ParsePrefix(o.Spec.PodCIDR); err == nil {
				used = append(used, u)
			}
		}
		for _, u := range w.allocated {
			used = append(used, u)
		}
		var err error
		if p, err = w.alloc.free(used); err != nil {
			return fmt.Errorf("node %s: %w", n.Name, err)
		}
		w.allocated[n.Name] = p
	}
	n.Spec.PodCIDR = p.String()
	n.Spec.PodCIDRs = []string{p.String()}
	return nil
}

// nodeBits is the size of a node's pod network: 254 addresses, and a mask that people can read.
const nodeBits = 24

// allocator divides the cluster's pod network into one /24 for each node. It goes round: a network that a node has left is
// allocated again only after all others, because a dark node whose object was deleted may go on using it for a while.
type allocator struct {
	cluster netip.Prefix // masked, IPv4, /24 or larger; does not change
	next    uint32       // index of the network to try first, less than size()
}

func newAllocator(cluster netip.Prefix) (*allocator, error) {
	if !cluster.IsValid() || !cluster.Addr().Is4() || cluster.Bits() > nodeBits {
		return nil, fmt.Errorf("pod network %s: need an IPv4 network of at least /%d, for example 10.42.0.0/16", cluster, nodeBits)
	}
	return &allocator{cluster: cluster.Masked()}, nil
}

// size returns how many nodes there is room for.
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
	var odd []netip.Prefix // set by a user, of another size
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
