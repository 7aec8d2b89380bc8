package edgeagent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"sync"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/edgeagent/cache"
	"petrel.dev/petrel/edgeagent/ctrd"
	"petrel.dev/petrel/edgeagent/desired"
	"petrel.dev/petrel/edgeagent/link"
	"petrel.dev/petrel/edgeagent/localvolume"
	"petrel.dev/petrel/edgeagent/node"
	"petrel.dev/petrel/edgeagent/podnet"
	"petrel.dev/petrel/internal/buildinfo"
	"petrel.dev/petrel/internal/lean"
	"petrel.dev/petrel/internal/safefile"
	"petrel.dev/petrel/internal/seal"
	"petrel.dev/petrel/internal/stall"
	"petrel.dev/petrel/internal/wire"
)

// Agent is one edge node. It wires the node's parts and hands the desired set to them; see the package's doc.
type Agent struct {
	cfg Config       // checked by New; never changes
	dir string       // DATA/agent
	log *slog.Logger // never nil

	// Run sets these in this order before any part starts; they are never nil afterwards, and never change.
	cache   *cache.Cache
	link    *link.Link // nil in tests without a hub
	rt      *ctrd.Runtime
	images  *imagePlatforms
	reclaim *localvolume.Reclaimer
	node    *node.Node

	// nodeName is what the hub calls this node, otherwise the configured name. Run sets it before any part starts; later
	// only follow writes it, while there is no data plane.
	nodeName string
	used     imageUse   // guards itself
	applying stall.Work // of apply, until only images are inspected

	mu sync.Mutex
	// set is guarded by mu. It is never nil, and replaced whole: a *desired.Set does not change once it is here.
	set *desired.Set
	// plane is guarded by mu. It is nil until the hub has given the cluster's networks, and while they change; otherwise it is
	// whole: none of its parts is nil. Only runDataPlane writes it.
	plane *dataPlane
	// lastNetwork is guarded by mu: the network of the newest data plane, which stopPods removes from the kernel when that
	// data plane has ended. nil before the first.
	lastNetwork *podnet.Network

	// watchReports, if set, sees each report before the cache does; for tests. Set before Run.
	watchReports func(wire.Object)
}

// New checks cfg and makes an agent. It does nothing before Run.
func New(cfg Config) (*Agent, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	return &Agent{cfg: cfg, dir: filepath.Join(cfg.DataDir, "agent"), log: cfg.Log, set: &desired.Set{}, nodeName: cfg.NodeName, applying: stall.Work{Name: "applying the desired set"}}, nil
}

// podsDir holds one directory for each pod.
func (a *Agent) podsDir() string { return filepath.Join(a.dir, "pods") }

// runtimeConfig is how the agent reaches containerd.
func (a *Agent) runtimeConfig() ctrd.Config {
	return ctrd.Config{Address: a.cfg.ContainerdAddress, Private: a.cfg.PrivateContainerd, DataDir: a.dir, RunDir: a.cfg.RunDir,
		Namespace: a.cfg.ContainerdNamespace, PlainHTTP: a.cfg.PlainHTTPRegistries, Disk: a.cfg.Disk, Log: a.log}
}

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
	if a.rt, err = ctrd.Open(ctx, a.runtimeConfig()); err != nil {
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
	a.images = newImagePlatforms(a.rt, a.report, a.cache.Forget)
	a.reclaim = a.newReclaimer()
	if a.node, err = a.newNode(ctx); err != nil {
		return unlessStopped(ctx, err)
	}
	stopped := ctx
	g, ctx := errgroup.WithContext(ctx)
	a.watchdog(ctx, g) // before images are imported, which takes minutes on a slow card
	a.makeRoom(ctx)
	a.importImages(ctx) // first: pods that start now would try to pull them
	g.Go(func() error { return a.rt.Run(ctx) })
	g.Go(func() error { return a.node.Run(ctx, a.report) })
	g.Go(func() error { return a.follow(ctx) })
	g.Go(func() error { return a.keepDisk(ctx) })
	g.Go(func() error { return a.reclaim.Run(ctx) })
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

// unlessStopped returns err, but nil when ctx has ended and err only says so: an agent that is stopped in the middle of its
// start, which on a small board takes seconds, has not failed.
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
			Cache: a.cache, Serve: a.ServeStream, Joined: a.cfg.Joined, Build: buildinfo.GitVersion(), Log: a.log}); err != nil {
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

// completed returns a channel that is closed once the hub has sent the whole desired set: from then on, what is not in it is
// not wanted. Without a link the channel is nil.
func (a *Agent) completed() <-chan struct{} {
	if a.link == nil {
		return nil
	}
	return a.link.Completed()
}

// newNode describes the machine as a Node, and bounds the memory that all pods have together.
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

// notReady returns why pods cannot run on this node yet; "" if they can.
func (a *Agent) notReady() string {
	if why := a.rt.NotReady(); why != "" {
		return "container runtime not ready: " + why
	}
	plane := a.dataPlane()
	if plane == nil {
		return "container runtime network not ready: the hub has not told this node's pod network yet"
	}
	if why := plane.networkError(); why != "" {
		return "container runtime network not ready: " + why
	}
	return ""
}

// report queues o for the hub in the cache, which outlives the agent.
func (a *Agent) report(o wire.Object) error {
	if a.watchReports != nil {
		a.watchReports(o)
	}
	return a.cache.Report(o)
}

// dataPlane returns the data plane; nil while there is none.
func (a *Agent) dataPlane() *dataPlane {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.plane
}

// desiredSet returns the newest desired set; never nil. The caller must not change it.
func (a *Agent) desiredSet() *desired.Set {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.set
}
