package podnet

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The VXLAN between nodes that share no LAN: UDP port 4789 (RFC 7348). There is no flooding and no learning: every node
// computes every other's hardware address from its podCIDR, and the forwarding entries follow from the peers.
const (
	vxlanID   = 8070
	vxlanPort = 4789
)

// vtepMAC is the hardware address of a node's end of the VXLAN.
func vtepMAC(first netip.Prefix) net.HardwareAddr { return stableMAC(0x0e, gateway(first)) }

// ensureVXLAN makes the device, with entries for exactly the paths that need it, or removes it when none does.
func (n *Network) ensureVXLAN(paths []path) (netlink.Link, error) {
	var far []path
	overhead := 50 // outer IPv4, UDP, VXLAN, inner Ethernet
	for _, p := range paths {
		if p.link == 0 {
			far = append(far, p)
			if p.via.Is6() {
				overhead = 70
			}
		}
	}
	name := n.vxlanName()
	if len(far) == 0 {
		if err := n.deleteLink(name); err != nil {
			return nil, fmt.Errorf("podnet vxlan: %w", err)
		}
		return nil, nil
	}
	link, err := n.vxlanDevice(name, max(n.mtu-overhead, 1280))
	if err != nil {
		return nil, fmt.Errorf("podnet vxlan %s: %w", name, explain(err))
	}
	if err := n.vxlanEntries(link, far); err != nil {
		return nil, fmt.Errorf("podnet vxlan %s: %w", name, explain(err))
	}
	return link, nil
}

func (n *Network) vxlanDevice(name string, mtu int) (netlink.Link, error) {
	mac := vtepMAC(n.podCIDRs[0])
	link, err := n.link(name)
	if err != nil {
		return nil, err
	}
	if link != nil {
		v, ok := link.(*netlink.Vxlan)
		if ok && v.VxlanId == vxlanID && v.Port == vxlanPort && !v.Learning && sameMAC(v.HardwareAddr, mac) {
			if v.MTU != mtu {
				if err := n.nl.LinkSetMTU(link, mtu); err != nil {
					return nil, fmt.Errorf("set MTU %d: %w", mtu, err)
				}
			}
			return link, n.nl.LinkSetUp(link)
		}
		if err := n.nl.LinkDel(link); err != nil {
			return nil, fmt.Errorf("replace: %w", err)
		}
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.HardwareAddr = name, mtu, mac
	if err := n.nl.LinkAdd(&netlink.Vxlan{LinkAttrs: attrs, VxlanId: vxlanID, Port: vxlanPort, Learning: false}); err != nil {
		return nil, fmt.Errorf("create: %w", err)
	}
	if link, err = n.link(name); err != nil || link == nil {
		return nil, fmt.Errorf("vanished while being made: %w", err)
	}
	n.log.Info("vxlan made for nodes that are not on this LAN", "interface", name, "mtu", mtu)
	return link, n.nl.LinkSetUp(link)
}

// vxlanEntries sets, for each far node, where its hardware address is (forwarding entry) and that its bridge address has
// that hardware address (neighbour entry), and removes all others.
func (n *Network) vxlanEntries(link netlink.Link, far []path) error {
	index := link.Attrs().Index
	wantFDB, wantIP := map[string]bool{}, map[netip.Addr]bool{}
	for _, p := range far {
		mac := vtepMAC(p.peer.cidrs[0])
		fdb := &netlink.Neigh{LinkIndex: index, Family: unix.AF_BRIDGE, Flags: unix.NTF_SELF,
			State: unix.NUD_PERMANENT, IP: p.via.AsSlice(), HardwareAddr: mac}
		if err := n.nl.NeighSet(fdb); err != nil {
			return fmt.Errorf("forwarding entry of node %s: %w", p.peer.name, err)
		}
		wantFDB[mac.String()] = true
		for _, c := range p.peer.cidrs {
			arp := &netlink.Neigh{LinkIndex: index, State: unix.NUD_PERMANENT, Type: unix.RTN_UNICAST,
				IP: gateway(c).AsSlice(), HardwareAddr: mac}
			if err := n.nl.NeighSet(arp); err != nil {
				return fmt.Errorf("neighbour entry of node %s: %w", p.peer.name, err)
			}
			wantIP[gateway(c)] = true
		}
	}
	for _, family := range []int{unix.AF_BRIDGE, unix.AF_INET, unix.AF_INET6} {
		have, err := n.nl.NeighList(index, family)
		if err != nil {
			return fmt.Errorf("list entries: %w", err)
		}
		for _, e := range have {
			ip, _ := netip.AddrFromSlice(e.IP)
			stale := family == unix.AF_BRIDGE && !wantFDB[e.HardwareAddr.String()] ||
				family != unix.AF_BRIDGE && e.State&unix.NUD_PERMANENT != 0 && !wantIP[ip.Unmap()]
			if stale {
				_ = n.nl.NeighDel(&e) // at worst an entry that nothing routes to
			}
		}
	}
	return nil
}
