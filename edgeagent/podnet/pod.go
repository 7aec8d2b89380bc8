package podnet

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// plug joins the pod's namespace to the bridge and configures the pod's side.
func (n *Network) plug(podUID, nsPath string, ips []netip.Addr) error {
	ns, err := netns.GetFromPath(nsPath)
	if err != nil {
		return fmt.Errorf("open %s: %w", nsPath, err)
	}
	defer ns.Close()
	pod, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("netlink in the pod: %w", err)
	}
	defer pod.Close()

	bridge, err := n.link(n.cfg.Bridge)
	if err != nil {
		return err
	}
	if bridge == nil { // someone removed it since Setup
		if err := n.ensureBridge(); err != nil {
			return err
		}
		if bridge, err = n.link(n.cfg.Bridge); err != nil || bridge == nil {
			return fmt.Errorf("bridge %s: %w", n.cfg.Bridge, err)
		}
	}
	host, err := n.ensureVeth(podUID, ns, pod)
	if err != nil {
		return err
	}
	if host.Attrs().MasterIndex != bridge.Attrs().Index {
		if err := n.nl.LinkSetMaster(host, bridge); err != nil {
			return fmt.Errorf("join %s to bridge %s: %w", host.Attrs().Name, n.cfg.Bridge, err)
		}
	}
	if host.Attrs().MTU != n.mtu {
		if err := n.nl.LinkSetMTU(host, n.mtu); err != nil {
			return fmt.Errorf("set MTU of %s: %w", host.Attrs().Name, err)
		}
	}
	eth0, err := find(pod, "eth0")
	if err != nil || eth0 == nil {
		return fmt.Errorf("eth0 vanished from the pod: %w", err)
	}
	n.ensureSender(host.Attrs().Name, eth0.Attrs().HardwareAddr, ips)
	if err := n.nl.LinkSetUp(host); err != nil {
		return fmt.Errorf("bring up %s: %w", host.Attrs().Name, err)
	}
	return n.configurePod(pod, ips)
}

// ensureVeth returns the host end of the pod's pair. A pair of which either end is missing or elsewhere is made again.
func (n *Network) ensureVeth(podUID string, ns netns.NsHandle, pod *netlink.Handle) (netlink.Link, error) {
	name := vethName(podUID)
	host, err := n.link(name)
	if err != nil {
		return nil, err
	}
	eth0, err := find(pod, "eth0")
	if err != nil {
		return nil, err
	}
	if host != nil && eth0 != nil && host.Attrs().ParentIndex == eth0.Attrs().Index {
		return host, nil
	}
	if host != nil {
		if err := n.nl.LinkDel(host); err != nil {
			return nil, fmt.Errorf("remove stale %s: %w", name, err)
		}
	}
	if eth0, err = find(pod, "eth0"); err == nil && eth0 != nil {
		err = pod.LinkDel(eth0)
	}
	if err != nil {
		return nil, fmt.Errorf("remove stale eth0: %w", err)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = name, n.mtu
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(ns), PeerMTU: uint32(n.mtu)}
	if err := n.nl.LinkAdd(veth); err != nil {
		return nil, fmt.Errorf("make veth pair %s: %w", name, err)
	}
	if host, err = n.link(name); err != nil || host == nil {
		return nil, fmt.Errorf("veth %s vanished while being made: %w", name, err)
	}
	if err := n.quietIPv6(name, false); err != nil {
		return nil, err
	}
	_ = n.nl.LinkSetAlias(host, "petrel pod "+podUID) // for people who read `ip link`
	return host, nil
}

// configurePod sets lo, eth0 and the default routes inside a pod's namespace.
func (n *Network) configurePod(pod *netlink.Handle, ips []netip.Addr) error {
	lo, err := find(pod, "lo")
	if err == nil && lo != nil {
		err = pod.LinkSetUp(lo)
	}
	if err != nil {
		return fmt.Errorf("bring up lo in the pod: %w", err)
	}
	eth0, err := find(pod, "eth0")
	if err != nil || eth0 == nil {
		return fmt.Errorf("eth0 vanished from the pod: %w", err)
	}
	if eth0.Attrs().MTU != n.mtu {
		if err := pod.LinkSetMTU(eth0, n.mtu); err != nil {
			return fmt.Errorf("set MTU in the pod: %w", err)
		}
	}
	var want []netip.Prefix
	for i, ip := range ips {
		want = append(want, netip.PrefixFrom(ip, n.podCIDRs[i].Bits()))
	}
	if err := setAddrs(pod, eth0, want); err != nil {
		return fmt.Errorf("in the pod: %w", err)
	}
	if err := pod.LinkSetUp(eth0); err != nil {
		return fmt.Errorf("bring up eth0 in the pod: %w", err)
	}
	for _, c := range n.podCIDRs {
		r := &netlink.Route{LinkIndex: eth0.Attrs().Index, Dst: defaultDst(c.Addr()), Gw: gateway(c).AsSlice()}
		if err := pod.RouteReplace(r); err != nil {
			return fmt.Errorf("default route in the pod: %w", err)
		}
	}
	return nil
}
