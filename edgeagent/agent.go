package edgeagent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/edgeagent/cache"
	"petrel.dev/petrel/edgeagent/ctrd"
	"petrel.dev/petrel/edgeagent/desired"
	"petrel.dev/petrel/edgeagent/link"
	"petrel.dev/petrel/edgeagent/node"
	"petrel.dev/petrel/edgeagent/podnet"
	"petrel.dev/petrel/edgeagent/podrun"
	"petrel.dev/petrel/edgeagent/podspec"
	"petrel.dev/petrel/edgeagent/volume"
	"petrel.dev/petrel/internal/buildinfo"
	"petrel.dev/petrel/internal/contain"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/lean"
	"petrel.dev/petrel/internal/safefile"
	"petrel.dev/petrel/internal/seal"
	"petrel.dev/petrel/internal/wire"
	"petrel.dev/petrel/svcproxy"
)

// Agent is one edge node.
type Agent struct {
	cfg   Config
	dir   string // DATA/agent
	log   *slog.Logger
	cache *cache.Cache
	rt    *ctrd.Runtime
	node  *node.Node
	known *knowledge
	used  imageUse

	mu       sync.Mutex
	set      *desired.Set
	manager  *podrun.Manager // nil while the cluster's networks are not known
	proxy    *svcproxy.Proxy // the same
	network  *podnet.Network // the same
	netError string          // why the pod network is not ready
	nodeName string          // the hub's word wins over the configured one
	settings wire.Settings   // that the data plane runs with
	link     *link.Link      // nil in tests without a hub
	// watchReports, if set, sees each report before the cache does; for tests.
	watchReports func(wire.Object)
}

// New checks cfg and makes an agent. It does nothing before Run.
func New(cfg Config) (*Agent, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	return &Agent{cfg: cfg, dir: filepath.Join(cfg.DataDir, "agent"), log: cfg.Log, set: &desired.Set{}, nodeName: cfg.NodeName}, nil
}

// podsDir holds one directory for each pod.
func (a *Agent) podsDir() string { return filepath.Join(a.dir, "pods") }

// Run is the agent, until ctx ends. Pods outlive it unless StopPodsOnExit.
func (a *Agent) Run(ctx context.Context) (err error) {
	for _, dir := range []string{a.cfg.DataDir, a.dir, a.podsDir()} {
		if err := safefile.PrivateDir(dir, a.log); err != nil {
			return fmt.Errorf("agent: %w", err)
		}
	}
	unlock, err := lockDir(a.dir)
	if err != nil {
		return err
	}
	defer unlock()
	var keys *seal.Keys
	if file := a.cfg.CacheKeyFile; file != "" {
		if keys, err = seal.ReadFile(file); err != nil {
			return fmt.Errorf("--cache-key-file: %w", err)
		}
	}
	if a.cache, err = cache.Open(link.CacheDir(a.dir), keys, a.log); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.cache.Close()) }()
	a.set = desired.Decode(a.cache.Desired(), nil, a.log)
	if err := a.openLink(); err != nil {
		return err
	}
	if a.rt, err = ctrd.Open(ctx, ctrd.Config{Address: a.cfg.ContainerdAddress, Private: a.cfg.PrivateContainerd, DataDir: a.dir, RunDir: a.cfg.RunDir,
		Namespace: a.cfg.ContainerdNamespace, PlainHTTP: a.cfg.PlainHTTPRegistries, Disk: a.cfg.Disk, Log: a.log}); err != nil {
		return unlessStopped(ctx, err)
	}
	defer func() {
		// A device that could not join has no pods, so nothing needs containerd any more.
		stop := a.cfg.StopPodsOnExit || errors.Is(err, link.ErrJoin)
		err = errors.Join(err, atMost(stopGrace+stopLimit, "stopping the pods", a.stopPods), a.rt.Close(stop))
		if stop && a.rt.Private() {
			err = errors.Join(err, a.rt.Tidy())
		}
	}()
	a.known = newKnowledge(a.rt, a.report, a.cache.Forget)
	if a.node, err = a.newNode(ctx); err != nil {
		return unlessStopped(ctx, err)
	}
	a.makeRoom(ctx)
	a.importImages(ctx) // first: pods that start now would try to pull them
	stopped := ctx
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.rt.Run(ctx) })
	g.Go(func() error { return a.node.Run(ctx, a.report) })
	g.Go(func() error { return a.follow(ctx) })
	g.Go(func() error { return a.keepDisk(ctx) })
	g.Go(func() error { return lean.Run(ctx, a.log) })
	if a.link != nil {
		g.Go(func() error { return a.link.Run(ctx) })
	}
	return unlessStopped(stopped, a.wait(ctx, g))
}

// wait returns when the agent's parts have ended. Once one has, or the agent is to stop, the others may take stopLimit:
// what hangs in the kernel must not keep the process.
func (a *Agent) wait(ctx context.Context, g *errgroup.Group) error {
	ended := make(chan error, 1)
	go func() { ended <- g.Wait() }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	return atMost(stopLimit, "stopping the agent's parts", func() error { return <-ended })
}

// unlessStopped is err, unless that is only what became of work that was told to stop: an agent that is stopped in the
// middle of its start, which on a small board takes seconds, has not failed.
func unlessStopped(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// openLink makes the device's end of the link, and finds out what the hub calls this node.
func (a *Agent) openLink() error {
	if !a.cfg.offline {
		var err error
		if a.link, err = link.New(link.Config{Dir: a.dir, JoinToken: a.cfg.JoinToken, NodeName: a.cfg.NodeName, Labels: a.cfg.Labels, Taints: a.cfg.Taints,
			Cache: a.cache, Serve: a.ServeStream, Build: buildinfo.GitVersion(), Log: a.log}); err != nil {
			return err
		}
		if name := a.link.Status().Node; name != "" {
			a.nodeName = name
		}
	}
	if a.set.Node != nil {
		a.nodeName = a.set.Node.Name
	}
	return nil
}

// Link tells how the connection to the hub is; false before Run has made one.
func (a *Agent) Link() (link.Status, bool) {
	if a.link == nil {
		return link.Status{}, false
	}
	return a.link.Status(), true
}

// completed is closed once what the desired set does not name is not wanted: the hub has said that the set is complete.
// Without a link it never is.
func (a *Agent) completed() <-chan struct{} {
	if a.link == nil {
		return nil
	}
	return a.link.Completed()
}

func (a *Agent) newNode(ctx context.Context) (*node.Node, error) {
	cfg := node.Config{
		Name: a.nodeName, DataDir: a.dir, Labels: a.cfg.Labels, Bridge: a.cfg.Bridge, NotReady: a.notReady, Problems: a.problems, ArchVariant: ctrd.ArchVariant(),
		Disk: a.cfg.Disk, ImageDir: a.rt.ImageDir(), Panics: panics,
	}
	if a.cfg.NodeIP.IsValid() {
		cfg.Addresses = []netip.Addr{a.cfg.NodeIP}
	}
	v, err := a.rt.Version(ctx)
	if err != nil {
		return nil, fmt.Errorf("containerd version: %w", err)
	}
	cfg.RuntimeVersion = "containerd://" + v
	cfg.RecursiveReadOnly = a.rt.Host(ctx).RecursiveReadOnly
	cfg.NoMemoryReason, cfg.NoMemoryLimits = a.rt.NoMemoryLimits()
	n, err := node.New(cfg)
	if err != nil {
		return nil, err
	}
	memory := n.Allocatable()[corev1.ResourceMemory]
	if err := a.rt.BoundAll(memory.Value()); err != nil {
		a.log.Warn("pods together are not bounded: they may take what the system needs", "error", err)
	}
	return n, nil
}

// notReady is why pods cannot run on this node yet.
func (a *Agent) notReady() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if why := a.rt.NotReady(); why != "" {
		return "container runtime not ready: " + why
	}
	switch {
	case a.manager == nil:
		return "container runtime network not ready: the hub has not told this node's pod network yet"
	case a.netError != "":
		return "container runtime network not ready: " + a.netError
	}
	return ""
}

// report hands something to the hub, by way of the cache.
func (a *Agent) report(o wire.Object) error {
	if a.watchReports != nil {
		a.watchReports(o)
	}
	return a.cache.Report(o)
}

// Runtime is the agent's container runtime, for the image commands; nil before Run has opened it.
func (a *Agent) Runtime() *ctrd.Runtime { return a.rt }

// follow applies the desired set as the cache has it, until ctx ends.
func (a *Agent) follow(ctx context.Context) error {
	changed, stop := a.cache.Subscribe()
	defer stop()
	for {
		if err := a.dataPlane(ctx, changed); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return nil
		}
	}
}

// dataPlane waits until the cluster's networks are known, then runs pods, network and proxy with them. It returns when
// ctx ends or when the networks change, which needs all of it set up anew.
func (a *Agent) dataPlane(ctx context.Context, changed <-chan struct{}) error {
	settings := a.cache.Settings()
	for settings == (wire.Settings{}) {
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-time.After(time.Second):
		}
		settings = a.cache.Settings()
	}
	p, err := parseSettings(settings)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	a.build(ctx, p)
	defer a.dismantle()
	g.Go(func() error { return a.manager.Run(ctx) })
	g.Go(func() error { return a.proxy.Run(ctx) })
	addresses := a.nodeIPs()
	g.Go(func() error {
		return a.network.Run(ctx, func() {
			contain.Go(a.log, "agent/addresses", a.nodeName, func() {
				a.proxy.Refresh()
				a.node.Recheck()
				if now := a.nodeIPs(); !slices.Equal(now, addresses) {
					addresses = now
					a.manager.Refresh()
				}
			})
		})
	})
	g.Go(func() error {
		retry := time.NewTimer(time.Hour)
		defer retry.Stop()
		completed, synced := a.completed(), false
		for {
			if !a.applied(ctx, synced) {
				retry.Reset(2 * time.Second)
			}
			for news := false; !news; {
				news = true
				select {
				case <-ctx.Done():
					return nil
				case <-changed:
				case <-retry.C:
				case <-completed:
					completed, synced = nil, true
				}
			}
			if s := a.cache.Settings(); s != settings {
				a.log.Warn("the cluster's networks have changed, setting up anew", "was", settings, "is", s)
				return errAnew
			}
		}
	})
	if err := g.Wait(); err != nil && !errors.Is(err, errAnew) {
		return err
	}
	return nil
}

var errAnew = errors.New("networks changed")

// plan is the cluster's networks, parsed.
type plan struct {
	wire.Settings
	pods, services []netip.Prefix
	dns            netip.Addr
	domain         string
}

func parseSettings(s wire.Settings) (plan, error) {
	p := plan{Settings: s, domain: s.ClusterDomain}
	if p.domain == "" {
		p.domain = kube.DefaultDomain
	}
	for text, list := range map[string]*[]netip.Prefix{s.PodCIDR: &p.pods, s.ServiceCIDR: &p.services} {
		if text == "" {
			continue
		}
		c, err := netip.ParsePrefix(text)
		if err != nil {
			return p, fmt.Errorf("the hub's network settings: %w", err)
		}
		*list = append(*list, c)
	}
	if s.DNSAddress != "" {
		var err error
		if p.dns, err = netip.ParseAddr(s.DNSAddress); err != nil {
			return p, fmt.Errorf("the hub's network settings: %w", err)
		}
	}
	return p, nil
}

func (a *Agent) volumes() *volume.Mounter {
	return &volume.Mounter{Dir: a.podsDir(), Allocatable: a.node.Allocatable()}
}

// build makes network, proxy and pod manager for the cluster's networks.
func (a *Agent) build(ctx context.Context, p plan) {
	if st, ok := a.Link(); ok && st.Node != "" {
		a.nodeName = st.Node
	}
	network := podnet.New(podnet.Config{Bridge: a.cfg.Bridge, StateDir: filepath.Join(a.dir, "net"), ServiceCIDRs: p.services, ClusterCIDRs: p.pods, Log: a.log})
	proxy := svcproxy.New(svcproxy.Config{Node: a.nodeName, ServiceCIDRs: p.services, ClusterDomain: p.domain, DNSAddr: p.dns,
		Sockets: func(open []svcproxy.Socket) error { return network.SetServiceSockets(serviceSockets(open)) }, Log: a.log})
	dns := podspec.DNS{Domain: p.domain}
	if p.dns.IsValid() {
		dns.Server = p.dns.String()
	}
	manager := podrun.NewManager(podrun.Config{
		Runtime: telling{a.rt, a.known}, Network: attacher{network}, Volumes: a.volumes(), Dir: a.podsDir(),
		NodeName: a.nodeName, NodeIPs: a.nodeIPs, Allocatable: a.node.Allocatable(), Host: a.rt.Host(ctx), Memory: a.node.Memory(), PodPidsLimit: a.cfg.PodPidsLimit, DNS: dns,
		Report: a.report, Forget: a.cache.Forget, PortsChanged: a.portsChanged, Logs: a.rt.Logs(), Dial: podnet.Dial, Free: a.freeBytes, Log: a.log,
	})
	a.mu.Lock()
	a.network, a.proxy, a.manager, a.netError, a.settings = network, proxy, manager, "no pod CIDR yet", p.Settings
	a.mu.Unlock()
}

func (a *Agent) dismantle() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.manager = nil
}

func (a *Agent) nodeIPs() []string {
	var out []string
	for _, ip := range a.node.Addresses() {
		out = append(out, ip.String())
	}
	return out
}

// applied is apply; a panic in it is tried again like any other failure.
func (a *Agent) applied(ctx context.Context, synced bool) (ok bool) {
	contain.Go(a.log, "agent/apply", a.nodeName, func() { ok = a.apply(ctx, synced) })
	return ok
}

// apply hands the desired set, as it is now, to everything that works on it; false: try again soon. synced: what is not
// in it is not wanted.
func (a *Agent) apply(ctx context.Context, synced bool) bool {
	a.mu.Lock()
	before := a.set
	a.mu.Unlock()
	set := desired.Decode(a.cache.Desired(), before, a.log) // without the lock, which a panic in it would keep
	a.mu.Lock()
	a.set = set
	a.mu.Unlock()
	why := a.applyNetwork(ctx, set)
	a.mu.Lock()
	news := a.netError != why
	a.netError = why
	a.mu.Unlock()
	if news {
		if why != "" {
			a.log.Info("pod network is not ready", "why", why) // as it is for a moment at every first start
		}
		a.node.Recheck()
	}
	a.applyProxy()
	for _, p := range set.Pods {
		a.used.note(podrun.ImagesOf(p), time.Now())
	}
	untold := a.known.want(set) // first: pulls that begin now will tell
	a.manager.Apply(set, synced)
	a.known.look(ctx, untold)
	return why == ""
}

// applyNetwork brings the node's own pod network and the routes to the others up to date.
func (a *Agent) applyNetwork(ctx context.Context, set *desired.Set) string {
	if set.Node == nil || len(podCIDRs(set.Node)) == 0 {
		return "the hub has not given this node a pod CIDR yet"
	}
	if err := a.network.Setup(ctx, podCIDRs(set.Node)); err != nil {
		return err.Error()
	}
	if err := a.network.SetRoutes(ctx, set.Peers); err != nil {
		a.log.Warn("routes to other nodes", "error", err)
	}
	return ""
}

func podCIDRs(n *corev1.Node) []netip.Prefix {
	list := n.Spec.PodCIDRs
	if len(list) == 0 && n.Spec.PodCIDR != "" {
		list = []string{n.Spec.PodCIDR}
	}
	var out []netip.Prefix
	for _, s := range list {
		if p, err := netip.ParsePrefix(s); err == nil {
			out = append(out, p)
		}
	}
	return out
}

// attacher is podnet as podrun wants it.
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
