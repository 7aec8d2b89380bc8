package podnet

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ensureBridge makes the bridge with exactly the gateway addresses.
func (n *Network) ensureBridge() error {
	name := n.cfg.Bridge
	link, err := n.link(name)
	if err != nil {
		return fmt.Errorf("podnet bridge %s: %w", name, err)
	}
	if link != nil && link.Type() != "bridge" {
		return fmt.Errorf("podnet bridge %s: an interface of this name exists and is a %s; rename it, or give the agent another bridge name", name, link.Type())
	}
	// A fixed MAC: otherwise the bridge takes its lowest port's and changes it as pods come and go.
	mac := stableMAC(0x0a, gateway(n.podCIDRs[0]))
	if link == nil {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.HardwareAddr, attrs.MTU = name, mac, n.mtu
		if err := n.nl.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("podnet bridge %s: create: %w", name, explain(err))
		}
		if link, err = n.link(name); err != nil || link == nil {
			return fmt.Errorf("podnet bridge %s: vanished while being made: %w", name, err)
		}
		n.log.Info("pod bridge made", "bridge", name, "mtu", n.mtu)
	}
	if err := n.quietIPv6(name, true); err != nil {
		return fmt.Errorf("podnet bridge %s: %w", name, err)
	}
	if link.Attrs().HardwareAddr.String() != mac.String() {
		if err := n.nl.LinkSetHardwareAddr(link, mac); err != nil {
			return fmt.Errorf("podnet bridge %s: set address %v: %w", name, mac, explain(err))
		}
	}
	if link.Attrs().MTU != n.mtu {
		if err := n.nl.LinkSetMTU(link, n.mtu); err != nil {
			return fmt.Errorf("podnet bridge %s: set MTU %d: %w", name, n.mtu, explain(err))
		}
	}
	var want []netip.Prefix
	for _, c := range n.podCIDRs {
		want = append(want, netip.PrefixFrom(gateway(c), c.Bits()))
	}
	if err := setAddrs(n.nl, link, want); err != nil {
		return fmt.Errorf("podnet bridge %s: %w", name, err)
	}
	if err := n.nl.LinkSetUp(link); err != nil {
		return fmt.Errorf("podnet bridge %s: bring up: %w", name, explain(err))
	}
	return nil
}

// quietIPv6 keeps pods from configuring the node: before an interface towards them comes up, it stops listening to router
// advertisements (CVE-2020-10749), and without an IPv6 pod network it has no IPv6 at all. A port of the bridge never has.
func (n *Network) quietIPv6(iface string, isBridge bool) error {
	off := !isBridge || !slices.ContainsFunc(n.podCIDRs, func(c netip.Prefix) bool { return c.Addr().Is6() })
	return inNamespace(int(n.home), func() error {
		dir := "net/ipv6/conf/" + iface
		if _, err := os.Stat("/proc/sys/" + dir); errors.Is(err, os.ErrNotExist) {
			return nil // a kernel without IPv6
		}
		for _, key := range []string{"accept_ra", "accept_redirects", "autoconf"} {
			if err := setSysctl(dir+"/"+key, "0"); err != nil {
				return err
			}
		}
		disabled := "0"
		if off {
			disabled = "1"
		}
		return setSysctl(dir+"/disable_ipv6", disabled)
	})
}

// setAddrs gives a link exactly these addresses, besides link-local ones.
func setAddrs(h *netlink.Handle, link netlink.Link, want []netip.Prefix) error {
	have, err := h.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("list addresses of %s: %w", link.Attrs().Name, err)
	}
	var kept []netip.Prefix
	for _, a := range have {
		p, ok := prefixOf(a.IPNet)
		if !ok || p.Addr().IsLinkLocalUnicast() {
			continue
		}
		if slices.Contains(want, p) {
			kept = append(kept, p)
			continue
		}
		if err := h.AddrDel(link, &a); err != nil {
			return fmt.Errorf("remove address %v of %s: %w", p, link.Attrs().Name, err)
		}
	}
	for _, p := range want {
		if slices.Contains(kept, p) {
			continue
		}
		a := &netlink.Addr{IPNet: ipNet(p)}
		if p.Addr().Is6() {
			a.Flags = unix.IFA_F_NODAD
		}
		if err := h.AddrReplace(link, a); err != nil {
			return fmt.Errorf("add address %v to %s: %w", p, link.Attrs().Name, explain(err))
		}
	}
	return nil
}

// sweep removes what pods left behind that are neither in a namespace nor on record: ports of the bridge without a pod.
func (n *Network) sweep() error {
	uids, err := n.attached()
	if err != nil {
		return err
	}
	keep := map[string]bool{}
	for _, uid := range uids {
		keep[vethName(uid)] = true
	}
	n.pruneSenders(func(port string) bool { return keep[port] })
	return n.removePorts(keep)
}

// removePorts deletes our ports of the bridge, except those to keep.
func (n *Network) removePorts(keep map[string]bool) error {
	bridge, err := n.link(n.cfg.Bridge)
	if err != nil || bridge == nil {
		return err
	}
	links, err := n.nl.LinkList()
	if err != nil {
		return fmt.Errorf("podnet list interfaces: %w", err)
	}
	for _, l := range links {
		a := l.Attrs()
		if a.MasterIndex != bridge.Attrs().Index || !strings.HasPrefix(a.Name, vethPrefix) || keep[a.Name] {
			continue
		}
		if err := n.nl.LinkDel(l); err != nil {
			return fmt.Errorf("podnet remove left-over %s: %w", a.Name, err)
		}
		n.log.Info("left-over pod interface removed", "interface", a.Name)
	}
	return nil
}

// uplinkMTU is the MTU of the interface with the default route; without one, 1500. On a path to another node that is
// narrower (VXLAN) the node itself tells pods so by ICMP.
func (n *Network) uplinkMTU() int {
	routes, err := n.nl.RouteList(nil, netlink.FAMILY_ALL)
	if err == nil {
		best, metric := 0, 0
		for _, r := range routes {
			if r.Gw == nil || r.LinkIndex == 0 || (r.Dst != nil && !r.Dst.IP.IsUnspecified()) {
				continue
			}
			if best == 0 || r.Priority < metric {
				best, metric = r.LinkIndex, r.Priority
			}
		}
		if best != 0 {
			if l, err := n.nl.LinkByIndex(best); err == nil && l.Attrs().MTU >= 1280 {
				return min(l.Attrs().MTU, 65535)
			}
		}
	}
	return 1500
}

// forwarding lets the kernel route between pods and the rest of the world.
func (n *Network) forwarding() error {
	v4, v6 := false, false
	for _, c := range n.podCIDRs {
		v4, v6 = v4 || c.Addr().Is4(), v6 || c.Addr().Is6()
	}
	return inNamespace(int(n.home), func() error {
		if v4 {
			if err := setSysctl("net/ipv4/ip_forward", "1"); err != nil {
				return err
			}
		}
		if !v6 {
			return nil
		}
		// A forwarding host stops listening to router advertisements, and would lose its own default route with them,
		// unless accept_ra says 2.
		dirs, _ := os.ReadDir("/proc/sys/net/ipv6/conf")
		for _, d := range dirs {
			if d.Name() == n.cfg.Bridge || strings.HasPrefix(d.Name(), vethPrefix) {
				continue // pods are no routers
			}
			key := "net/ipv6/conf/" + d.Name() + "/accept_ra"
			if b, err := os.ReadFile("/proc/sys/" + key); err == nil && strings.TrimSpace(string(b)) == "1" {
				_ = setSysctl(key, "2")
			}
		}
		return setSysctl("net/ipv6/conf/all/forwarding", "1")
	})
}

func setSysctl(key, value string) error {
	path := "/proc/sys/" + key
	if b, err := os.ReadFile(path); err == nil && strings.TrimSpace(string(b)) == value {
		return nil
	}
	if err := os.WriteFile(path, []byte(value), 0); err != nil {
		return fmt.Errorf("podnet set %s=%s: %w", strings.ReplaceAll(key, "/", "."), value, explain(err))
	}
	return nil
}

// link finds an interface of the node by name; nil when there is none.
func (n *Network) link(name string) (netlink.Link, error) { return find(n.nl, name) }

func find(h *netlink.Handle, name string) (netlink.Link, error) {
	l, err := h.LinkByName(name)
	var none netlink.LinkNotFoundError
	if errors.As(err, &none) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for interface %s: %w", name, err)
	}
	return l, nil
}

func (n *Network) deleteLink(name string) error {
	l, err := n.link(name)
	if err != nil || l == nil {
		return err
	}
	if err := n.nl.LinkDel(l); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove interface %s: %w", name, explain(err))
	}
	return nil
}

// stableMAC is a locally administered address made of an IP address.
func stableMAC(first byte, a netip.Addr) net.HardwareAddr {
	b := a.As16()
	return net.HardwareAddr{first, 0x70, b[12], b[13], b[14], b[15]}
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func prefixOf(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	a, ok := netip.AddrFromSlice(n.IP)
	ones, bits := n.Mask.Size()
	if !ok || bits == 0 {
		return netip.Prefix{}, false
	}
	if a = a.Unmap(); a.BitLen() != bits {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(a, ones), true
}

func defaultDst(like netip.Addr) *net.IPNet {
	if like.Is4() {
		return &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}
	}
	return &net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}
}
