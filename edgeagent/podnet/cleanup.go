package podnet

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"slices"

	"github.com/vishvananda/netlink"
)

// Cleanup removes everything that a Network of this Bridge and StateDir ever made, in this process or an earlier one:
// namespaces, interfaces, routes, nftables table, records. Pods must have been stopped. Forwarding stays enabled in the
// kernel, since others may rely on it by now. It goes on after an error and returns all of them.
func (n *Network) Cleanup(_ context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.open(); err != nil {
		return err
	}
	n.podCIDRs = n.formerCIDRs()
	uids, err := n.attached()
	errs := []error{err}
	for _, uid := range uids {
		errs = append(errs, n.detach(uid))
	}
	errs = append(errs, n.removeRoutes(), n.removeTables(),
		n.deleteLink(n.vxlanName()), n.removePorts(nil), n.deleteLink(n.cfg.Bridge),
		os.RemoveAll(n.ipamDir()), removeEmptyDir(n.netnsDir()), removeEmptyDir(n.cfg.StateDir))
	n.podCIDRs, n.peers, n.ready, n.allRouted = nil, nil, false, false
	n.sockets, n.guards = nil, [2]guardState{}
	clear(n.problems)
	return errors.Join(errs...)
}

// formerCIDRs reads the podCIDRs back from the bridge that an earlier process made.
func (n *Network) formerCIDRs() []netip.Prefix {
	cidrs := slices.Clone(n.podCIDRs)
	bridge, err := n.link(n.cfg.Bridge)
	if err != nil || bridge == nil {
		return cidrs
	}
	addrs, _ := n.nl.AddrList(bridge, netlink.FAMILY_ALL)
	for _, a := range addrs {
		if p, ok := prefixOf(a.IPNet); ok && gateway(p) == p.Addr() {
			cidrs = append(cidrs, p.Masked())
		}
	}
	return cidrs
}

func removeEmptyDir(dir string) error {
	if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		if rest, _ := os.ReadDir(dir); len(rest) > 0 {
			return nil // not ours
		}
		return err
	}
	return nil
}
