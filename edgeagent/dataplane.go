package edgeagent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"petrel.dev/petrel/edgeagent/cgroup"
	"petrel.dev/petrel/edgeagent/nodeapi"
	"petrel.dev/petrel/edgeagent/podnet"
	"petrel.dev/petrel/edgeagent/podrun"
	"petrel.dev/petrel/edgeagent/podspec"
	"petrel.dev/petrel/internal/contain"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/wire"
	"petrel.dev/petrel/svcproxy"
)

// nodeLogs is where the machine's programs have their logs.
const nodeLogs = "/var/log"

// retryApply is how long after a desired set could not be applied as a whole it is applied again.
const retryApply = 2 * time.Second

// dataPlane is what depends on the cluster's networks: pods, their network and the service proxy. All three are made
// together for one set of networks; when those change, a new dataPlane takes its place.
type dataPlane struct {
	// Set by newDataPlane; never nil, and never change.
	network *podnet.Network
	proxy   *svcproxy.Proxy
	pods    *podrun.Manager
	api     *nodeapi.Server

	mu     sync.Mutex
	netErr string // guarded by mu; why the pod network is not ready, "" when it is
}

// networkError returns why the pod network is not ready; "" when it is.
func (d *dataPlane) networkError() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.netErr
}

// setNetworkError sets why the pod network is not ready, and reports whether that is news.
func (d *dataPlane) setNetworkError(why string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	news := d.netErr != why
	d.netErr = why
	return news
}

// run runs the three parts until ctx ends. addressesChanged is called when interfaces or addresses of the node change.
func (d *dataPlane) run(ctx context.Context, g *errgroup.Group, addressesChanged func()) {
	g.Go(func() error { return d.pods.Run(ctx) })
	g.Go(func() error { return d.proxy.Run(ctx) })
	g.Go(func() error { return d.network.Run(ctx, addressesChanged) })
}

// follow applies the desired set as the cache has it, until ctx ends.
func (a *Agent) follow(ctx context.Context) error {
	changed, stop := a.cache.Subscribe()
	defer stop()
	for {
		if err := a.runDataPlane(ctx, changed); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return nil
		}
	}
}

// runDataPlane waits until the cluster's networks are known, then runs a data plane with them. It returns when ctx ends or
// when the networks change, which needs a new data plane.
func (a *Agent) runDataPlane(ctx context.Context, changed <-chan struct{}) error {
	settings, ok := a.awaitSettings(ctx, changed)
	if !ok {
		return nil
	}
	nets, err := parseNetworks(settings)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	plane := a.newDataPlane(ctx, nets)
	a.mu.Lock()
	a.plane, a.lastNetwork = plane, plane.network
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.plane = nil
	}()
	plane.run(ctx, g, a.addressesChanged(plane))
	g.Go(func() error { return a.applyChanges(ctx, plane, settings, changed) })
	if err := g.Wait(); err != nil && !errors.Is(err, errNetworksChanged) {
		return err
	}
	return nil
}

// awaitSettings returns the cluster's networks once the hub has given them; false when ctx has ended.
func (a *Agent) awaitSettings(ctx context.Context, changed <-chan struct{}) (wire.Settings, bool) {
	for {
		if s := a.cache.Settings(); s != (wire.Settings{}) {
			return s, true
		}
		select {
		case <-ctx.Done():
			return wire.Settings{}, false
		case <-changed:
		}
	}
}

// addressesChanged returns what is done when interfaces or addresses of the node change. Only one goroutine may call it.
func (a *Agent) addressesChanged(plane *dataPlane) func() {
	addresses := a.nodeIPs()
	return func() {
		contain.Go(a.log, "agent/addresses", a.nodeName, func() {
			plane.proxy.Refresh()
			a.node.Recheck()
			if now := a.nodeIPs(); !slices.Equal(now, addresses) {
				addresses = now
				plane.pods.Refresh()
			}
		})
	}
}

// errNetworksChanged ends a data plane whose networks are not the cluster's any more.
var errNetworksChanged = errors.New("networks changed")

// applyChanges applies the desired set to plane now and after each change, until ctx ends. It returns errNetworksChanged
// when the cluster's networks are no longer those of settings.
func (a *Agent) applyChanges(ctx context.Context, plane *dataPlane, settings wire.Settings, changed <-chan struct{}) error {
	retry := time.NewTimer(retryApply)
	retry.Stop() // it runs only after a failure
	defer retry.Stop()
	completed, synced := a.completed(), false
	for {
		if !a.applied(ctx, plane, synced) {
			retry.Reset(retryApply)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-retry.C:
		case <-completed:
			completed, synced = nil, true
		}
		if s := a.cache.Settings(); s != settings {
			a.log.Warn("the cluster's networks have changed, setting up anew", "was", settings, "is", s)
			return errNetworksChanged
		}
	}
}

// networks are the cluster's networks and the names in them, parsed. A prefix list may be empty.
type networks struct {
	pods, services []netip.Prefix
	dns            netip.Addr // invalid: no DNS in the cluster
	domain         string     // never empty
}

// parseNetworks parses what the hub has sent.
func parseNetworks(s wire.Settings) (networks, error) {
	n := networks{domain: s.ClusterDomain}
	if n.domain == "" {
		n.domain = kube.DefaultDomain
	}
	for text, list := range map[string]*[]netip.Prefix{s.PodCIDR: &n.pods, s.ServiceCIDR: &n.services} {
		if text == "" {
			continue
		}
		c, err := netip.ParsePrefix(text)
		if err != nil {
			return n, fmt.Errorf("the hub's network settings: %w", err)
		}
		*list = append(*list, c)
	}
	if s.DNSAddress != "" {
		var err error
		if n.dns, err = netip.ParseAddr(s.DNSAddress); err != nil {
			return n, fmt.Errorf("the hub's network settings: %w", err)
		}
	}
	return n, nil
}

// newNetwork returns the pods' network; nothing of it is made yet.
func (a *Agent) newNetwork(nets networks) *podnet.Network {
	return podnet.New(podnet.Config{Bridge: a.cfg.Bridge, StateDir: filepath.Join(a.dir, "net"), ServiceCIDRs: nets.services, ClusterCIDRs: nets.pods, Log: a.log})
}

// newDataPlane makes network, proxy and pod manager for the cluster's networks. Nothing runs yet.
func (a *Agent) newDataPlane(ctx context.Context, nets networks) *dataPlane {
	if a.link != nil {
		if name := a.link.Status().Node; name != "" {
			a.nodeName = name
		}
	}
	network := a.newNetwork(nets)
	proxy := svcproxy.New(svcproxy.Config{Node: a.nodeName, ServiceCIDRs: nets.services, ClusterDomain: nets.domain, DNSAddr: nets.dns,
		Sockets: func(open []svcproxy.Socket) error { return network.SetServiceSockets(serviceSockets(open)) }, Log: a.log})
	dns := podspec.DNS{Domain: nets.domain}
	if nets.dns.IsValid() {
		dns.Server = nets.dns.String()
	}
	pods := podrun.NewManager(podrun.Config{
		Runtime: reportingRuntime{a.rt, a.images}, Network: attacher{network}, Volumes: a.volumes(), VolumeImages: reportingImages{a.rt.VolumeImages(), a.images}, Dir: a.podsDir(),
		NodeName: a.nodeName, NodeIPs: a.nodeIPs, Allocatable: a.node.Allocatable(), Host: a.rt.Host(ctx), Memory: a.node.Memory(), PodPidsLimit: a.cfg.PodPidsLimit, DNS: dns,
		Report: a.report, Forget: a.cache.Forget, PortsChanged: a.portsChanged, Logs: a.rt.Logs(), Dial: podnet.Dial, Free: a.freeBytes, Log: a.log,
	})
	api := nodeapi.New(nodeapi.Config{NodeName: a.nodeName, Pods: pods.Pods, Cgroup: cgroup.Path, Panics: panics, LogDir: nodeLogs, Pulls: a.rt.Pulls, Log: a.log})
	return &dataPlane{network: network, proxy: proxy, pods: pods, api: api, netErr: "no pod CIDR yet"}
}

func (a *Agent) nodeIPs() []string {
	var out []string
	for _, ip := range a.node.Addresses() {
		out = append(out, ip.String())
	}
	return out
}

// attacher makes a podnet.Network fit podrun's interface.
type attacher struct{ n *podnet.Network }

func (n attacher) Attach(ctx context.Context, uid string) (podrun.Attachment, error) {
	at, err := n.n.Attach(ctx, uid)
	out := podrun.Attachment{Netns: at.NetnsPath}
	for _, ip := range at.IPs {
		out.IPs = append(out.IPs, ip.String())
	}
	return out, err
}

func (n attacher) Detach(ctx context.Context, uid string) error { return n.n.Detach(ctx, uid) }

// serviceSockets converts the proxy's open sockets to podnet's form.
func serviceSockets(open []svcproxy.Socket) []podnet.ServiceSocket {
	out := make([]podnet.ServiceSocket, 0, len(open))
	for _, s := range open {
		out = append(out, podnet.ServiceSocket{Addr: s.Addr, UDP: s.Protocol == svcproxy.UDP, Port: s.Port, At: s.At})
	}
	return out
}
