package podrun

import (
	"context"
	"log/slog"
	"maps"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/edgeagent/cruntime"
	"petrel.dev/petrel/edgeagent/desired"
	"petrel.dev/petrel/edgeagent/podlog"
	"petrel.dev/petrel/edgeagent/podrun/ahead"
	"petrel.dev/petrel/edgeagent/podrun/podevent"
	"petrel.dev/petrel/edgeagent/podrun/pull"
	"petrel.dev/petrel/edgeagent/podrun/slots"
	"petrel.dev/petrel/edgeagent/podrun/stream"
	"petrel.dev/petrel/edgeagent/podspec"
	"petrel.dev/petrel/edgeagent/volume"
	"petrel.dev/petrel/internal/contain"
	"petrel.dev/petrel/internal/wire"
)

// Network gives pods their place in the pod network. Both methods are idempotent.
type Network interface {
	// Attach makes a pod's network namespace and address, or finds them.
	Attach(ctx context.Context, podUID string) (Attachment, error)
	// Detach undoes Attach; what is not there is no error.
	Detach(ctx context.Context, podUID string) error
}

// Attachment is a pod's place in the network.
type Attachment struct {
	Netns string // path
	IPs   []string
}

// Config is what a Manager needs. All fields are required unless they say otherwise.
type Config struct {
	Runtime cruntime.Runtime
	Network Network
	Volumes *volume.Mounter
	// VolumeImages has images that are volumes, for Volumes to mount; nil: Runtime has.
	VolumeImages pull.Runtime
	// Dir holds one directory for each pod, named by UID.
	Dir      string
	NodeName string
	// NodeIPs are the node's own addresses, the main one first.
	NodeIPs func() []string
	// Allocatable is what the node has for pods. A pod that asks for more than is left of it is refused.
	Allocatable corev1.ResourceList
	// Host is what this node can enforce.
	Host cruntime.Host
	// Memory of the whole machine, in bytes.
	Memory int64
	// PodPidsLimit is how many processes and threads a pod may have; 0: no limit.
	PodPidsLimit int64
	DNS          podspec.DNS
	// Report hands a PodStatus or an Event on; the latest of an ID wins. Forget drops what was reported of an ID.
	Report func(wire.Object) error
	Forget func(wire.ID) error
	// PortsChanged is called, if set, when HostPorts may have changed.
	PortsChanged func()
	// Logs of containers, and Dial into pods, serve streams; without them those are refused.
	Logs *podlog.Pump
	// Free returns how many bytes are free on the disks that pods write to; nil: that is not known.
	Free func() int64
	Dial stream.Dialer
	Log  *slog.Logger
	Now  func() time.Time // nil: time.Now
}

// Manager is the pods of a node. It owns one worker for each.
type Manager struct {
	cfg     Config
	events  *podevent.Recorder
	starts  *slots.Slots // for containers that are being started
	pulls   *pull.Puller
	streams *stream.Server
	// admitting is held while a new pod is compared with the others: two must not both be let in to what is left for one.
	admitting sync.Mutex
	short     atomic.Bool            // of disk: no pod is let in that is new to the node
	limits    chan struct{}          // capacity 1: a pod that limits its use of the disk may have come
	want      atomic.Pointer[wanted] // never nil; Apply alone replaces it

	mu   sync.Mutex
	pods map[string]*handle // by UID, each with its worker; guarded by mu
	ctx  context.Context    // of Run; nil before and after, when no worker may start; guarded by mu
	wg   sync.WaitGroup     // the workers, and watchLimits
}

// wanted is what the hub wants of this node, as far as is known. It is immutable.
type wanted struct {
	set *desired.Set
	// complete is true if the set is all that the hub wants, so what is absent from it is not wanted. Once true it stays so.
	complete bool
	number   uint64 // of the Apply that it came with; from 1
}

// startTurn is how long a start of a container may hold its slot; one that takes longer waits for something.
const startTurn = 30 * time.Second

// NewManager makes a Manager. It does nothing before Run.
func NewManager(cfg Config) *Manager {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.VolumeImages == nil {
		cfg.VolumeImages = cfg.Runtime
	}
	m := &Manager{cfg: cfg, pods: map[string]*handle{},
		starts: slots.New(max(2, runtime.NumCPU()), startTurn, 0), pulls: pull.New(cfg.Runtime, cfg.VolumeImages, cfg.Now),
		limits: make(chan struct{}, 1),
		events: podevent.New(cfg.NodeName, cfg.Report, cfg.Now, cfg.Log),
	}
	m.want.Store(&wanted{set: &desired.Set{}, number: 1})
	m.streams = stream.New(stream.Config{Runtime: cfg.Runtime, Pod: m.streamPod, Logs: cfg.Logs, Dial: cfg.Dial, NodeIPs: cfg.NodeIPs, Now: cfg.Now, Log: cfg.Log})
	return m
}

// Run works until ctx ends; pods that run keep running then.
func (m *Manager) Run(ctx context.Context) error {
	events := m.cfg.Runtime.Events(ctx)
	m.open(ctx)
	m.reconcile()
	m.wg.Add(1)
	go func() {
		defer m.wg.Done()
		m.watchLimits(ctx)
	}()
	for {
		select {
		case <-ctx.Done():
			m.close()
			m.await()
			return nil
		case uid, ok := <-events:
			if !ok {
				events = nil
				continue
			}
			m.wake(uid)
		}
	}
}

// open lets workers start, which run as long as ctx.
func (m *Manager) open(ctx context.Context) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ctx = ctx
}

// close lets no more workers start.
func (m *Manager) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ctx = nil
}

// stopLimit is how long the workers may take to stop. Each has its own limits; one that hangs in the kernel keeps none, and
// must not keep the agent.
const stopLimit = 20 * time.Second

// await waits until the workers have stopped, or stopLimit has passed.
func (m *Manager) await() {
	stopped := make(chan struct{})
	go func() {
		m.wg.Wait()
		close(stopped)
	}()
	late := time.NewTimer(stopLimit)
	defer late.Stop()
	select {
	case <-stopped:
	case <-late.C:
		for _, h := range m.all() {
			m.cfg.Log.Error("the work on a pod does not stop, going without it", "pod", h.uid, "waited", stopLimit)
		}
	}
}

// Apply gives the manager a new desired set. A pod that leaves it is stopped and removed. complete: the set is known to be
// all that the hub wants, so that what an earlier life of the agent has left and the set does not name goes as well.
// Without it (the cache may have been damaged, and the hub is out of reach) such pods go on, from their copies on disk.
// One call at a time.
func (m *Manager) Apply(set *desired.Set, complete bool) {
	was := m.want.Load()
	m.want.Store(&wanted{set: set, complete: complete || was.complete, number: was.number + 1})
	before := m.all()
	m.reconcile()
	for _, h := range before {
		if h.affected(set) {
			h.inbox.poke()
		}
	}
	m.roomChanged()
}

// reconcile has a worker for each pod that is wanted or that there is something left of.
func (m *Manager) reconcile() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ctx == nil {
		return
	}
	for uid, pod := range m.want.Load().set.Pods {
		m.ensure(uid, pod)
	}
	entries, err := os.ReadDir(m.cfg.Dir)
	if err != nil && !os.IsNotExist(err) {
		m.cfg.Log.Error("pod directories cannot be listed", "dir", m.cfg.Dir, "error", err)
	}
	for _, e := range entries {
		m.ensure(e.Name(), nil)
	}
}

// ensure starts a worker for a pod unless it has one; pod is nil for one that is not wanted any more. The caller holds mu.
func (m *Manager) ensure(uid string, pod *corev1.Pod) {
	if m.pods[uid] != nil {
		return
	}
	w := newWorker(m, uid, pod)
	contain.Go(m.cfg.Log, "podrun/load", uid, w.load) // before any worker asks what the others have of the node
	m.pods[uid] = w.handle
	m.limitsChanged()
	ctx := m.ctx
	m.wg.Add(1)
	go func() {
		defer m.wg.Done()
		w.run(ctx)
		m.left(uid)
	}()
}

// left takes note that a pod's worker has ended.
func (m *Manager) left(uid string) {
	m.mu.Lock()
	was := m.pods[uid].shown.Load().pod
	delete(m.pods, uid)
	if pod := m.want.Load().set.Pods[uid]; m.ctx != nil && pod != nil {
		m.ensure(uid, pod) // wanted once more while the worker was leaving
	}
	m.mu.Unlock()
	m.portsChanged()
	m.roomChanged()
	m.nameFreed(was)
}

// all returns the pods that are looked after at the moment.
func (m *Manager) all() []*handle {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Collect(maps.Values(m.pods))
}

// Running counts the pods that the manager looks after.
func (m *Manager) Running() int { return len(m.all()) }

// Refresh has every pod looked at: the node's addresses have changed.
func (m *Manager) Refresh() { m.wake("") }

// wake makes one worker, or all of them, take a step.
func (m *Manager) wake(uid string) {
	for _, h := range m.all() {
		if uid == "" || uid == h.uid {
			h.inbox.poke()
		}
	}
}

// Pods returns the pods of the node with the status that was reported last. They are copies that share what is in them: read-only.
func (m *Manager) Pods() []*corev1.Pod {
	var out []*corev1.Pod
	for _, h := range m.all() {
		if s := h.shown.Load(); s.pod != nil && !s.removed {
			pod := *s.pod
			if s.allocated != nil {
				pod = *s.allocated
			}
			pod.Status = *s.last
			out = append(out, &pod)
		}
	}
	return out
}

// ServeStream serves one stream to a pod, or to the node's own address, and closes it.
func (m *Manager) ServeStream(ctx context.Context, req wire.StreamRequest, s wire.Stream) {
	m.streams.Serve(ctx, req, s)
}

// ServeFetch serves one stream that asks for images ahead of their pod, and closes it.
func (m *Manager) ServeFetch(ctx context.Context, s wire.Stream) {
	ahead.Serve(ctx, m.pulls, m.cfg.Log, s)
}

func (m *Manager) streamPod(uid string) (stream.Pod, bool) {
	for _, h := range m.all() {
		if h.uid == uid {
			return h.stream(), true
		}
	}
	return stream.Pod{}, false
}

func (m *Manager) portsChanged() {
	if m.cfg.PortsChanged != nil {
		m.cfg.PortsChanged()
	}
}

// node is this node as pods find it now.
func (m *Manager) node() podspec.Node {
	return podspec.Node{Name: m.cfg.NodeName, IPs: m.cfg.NodeIPs(), Allocatable: m.cfg.Allocatable, Memory: m.cfg.Memory,
		PodPids: m.cfg.PodPidsLimit, Host: m.cfg.Host, DNS: m.cfg.DNS}
}
