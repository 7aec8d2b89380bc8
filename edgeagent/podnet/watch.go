package podnet

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"petrel.dev/petrel/internal/contain"
)

// settle is how long Run waits after an event for more of them: an interface that comes up sends several.
const settle = 500 * time.Millisecond

// retryPeers is how often Run tries peers again that it cannot reach.
const retryPeers = 30 * time.Second

// Run keeps the network as Setup and SetRoutes asked while interfaces and addresses of the node change: the kernel drops
// routes when a cable is pulled, DHCP brings another address, a modem replaces the Wi-Fi. changed, when not nil, is
// called after each such change (svcproxy.Proxy.Refresh wants to know). It returns when ctx is done. Between events it
// sleeps.
func (n *Network) Run(ctx context.Context, changed func()) error {
	for pause := settle; ; pause = min(2*pause, retryPeers) {
		begin := time.Now()
		err := n.watch(ctx, changed)
		if ctx.Err() != nil {
			return nil
		}
		// The kernel drops a subscriber that does not keep up with it, as when many pods come while a card takes seconds
		// for each write. The next look finds what has been missed.
		n.log.Warn("changes of this machine's network may have been missed, looking again", "error", err)
		if time.Since(begin) > retryPeers {
			pause = settle
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

// watch does Run's work until ctx ends or the kernel's messages do.
func (n *Network) watch(ctx context.Context, changed func()) error {
	done := make(chan struct{})
	links := make(chan netlink.LinkUpdate, 64)
	addrs := make(chan netlink.AddrUpdate, 64)
	routes := make(chan netlink.RouteUpdate, 64)
	subscribed := 0
	defer func() {
		close(done)
		// A sender that still has a message for us must not wait without end. The library closes what it has taken.
		for i, drain := range []func(){func() { drop(links) }, func() { drop(addrs) }, func() { drop(routes) }} {
			if i < subscribed {
				go drain()
			}
		}
	}()
	lost := make(chan error, 3)
	report := func(err error) {
		select {
		case lost <- err:
		default:
		}
	}
	if err := netlink.LinkSubscribeWithOptions(links, done, netlink.LinkSubscribeOptions{Namespace: &n.home, ErrorCallback: report}); err != nil {
		return fmt.Errorf("podnet watch interfaces: %w", explain(err))
	}
	subscribed++
	if err := netlink.AddrSubscribeWithOptions(addrs, done, netlink.AddrSubscribeOptions{Namespace: &n.home, ErrorCallback: report}); err != nil {
		return fmt.Errorf("podnet watch addresses: %w", explain(err))
	}
	subscribed++
	if err := netlink.RouteSubscribeWithOptions(routes, done, netlink.RouteSubscribeOptions{Namespace: &n.home, ErrorCallback: report}); err != nil {
		return fmt.Errorf("podnet watch routes: %w", explain(err))
	}
	subscribed++
	timer := time.NewTimer(0) // something may have changed before the subscription
	defer timer.Stop()
	for {
		ok := true
		select {
		case <-ctx.Done():
			return nil
		case u, open := <-links:
			if ok = open; ok && n.foreign(u) {
				timer.Reset(settle)
			}
		case u, open := <-addrs:
			p, valid := prefixOf(&u.LinkAddress)
			if ok = open; ok && valid && !p.Addr().IsLinkLocalUnicast() && !n.isGateway(p.Addr()) {
				timer.Reset(settle)
			}
		case u, open := <-routes:
			// Network daemons remove routes that they did not make.
			if ok = open; ok && u.Type == unix.RTM_DELROUTE && u.Protocol == routeProtocol {
				timer.Reset(settle)
			}
		case <-n.unreached:
			timer.Reset(retryPeers)
		case <-timer.C:
			retry := true // after a panic, too
			contain.Go(n.log, "podnet/watch", n.cfg.Bridge, func() { retry = n.again(ctx) })
			if retry {
				timer.Reset(retryPeers)
			}
			if changed != nil {
				changed()
			}
		}
		if !ok {
			select {
			case err := <-lost:
				return err
			default:
				return errors.New("the kernel closed the subscription")
			}
		}
	}
}

func drop[T any](messages <-chan T) {
	for range messages {
	}
}

// again converges and reports whether something is still missing that time may bring.
func (n *Network) again(ctx context.Context) (retry bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	err := n.converge()
	if err == nil && len(n.podCIDRs) > 0 {
		err = n.route(ctx)
		n.allRouted = err == nil
	}
	now := fmt.Sprint(err)
	if err != nil && now != n.lastErr && ctx.Err() == nil {
		n.log.Warn("pod network is not complete", "error", err)
	}
	n.lastErr = now
	return err != nil
}

// foreign reports whether a change of an interface matters: of one that is not ours, or the deletion of our bridge. Those that
// come and go with pods, ours or another runtime's, do not matter.
func (n *Network) foreign(u netlink.LinkUpdate) bool {
	a := u.Link.Attrs()
	if a.Name == n.cfg.Bridge {
		return u.Header.Type == unix.RTM_DELLINK
	}
	return a.Name != n.vxlanName() && a.Name != "lo" && a.MasterIndex == 0 && !strings.HasPrefix(a.Name, vethPrefix)
}

func (n *Network) isGateway(a netip.Addr) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.ContainsFunc(n.podCIDRs, func(c netip.Prefix) bool { return gateway(c) == a })
}
