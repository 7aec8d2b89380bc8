package podrun

import (
	"context"
	"log/slog"
	"net/netip"
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
	"petrel.dev/petrel/edgeagent/podrun/pull"
	"petrel.dev/petrel/edgeagent/podrun/slots"
	"petrel.dev/petrel/edgeagent/podrun/stream"
	"petrel.dev/petrel/edgeagent/podspec"
	"petrel.dev/petrel/edgeagent/volume"
	"petrel.dev/petrel/internal/contain"
	"petrel.dev/petrel/internal/wire"
	"petrel.dev/petrel/svcproxy"
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
	cfg    Config
	events *recorder
	// admitting is held while a new pod is compared with the others.
	admitting sync.Mutex
	starts    *slots.Slots // containers that are being started
	pulls     *pull.Puller
	streams   *stream.Server
	short     atomic.Bool   // of disk: no pod is let in that is new to the node
	limits    chan struct{} // capacity 1: a pod that limits its use of the disk may have come

	mu       sync.Mutex
	set      *desired.Set
	complete bool
	workers  map[string]*worker
	wg       sync.WaitGroup
	ctx      context.Context // of Run; nil before it and after
}

// startTurn is how long a start of a container may hold its slot; one that takes longer waits for something.
const startTurn = 30 * time.Second

// NewManager makes a Manager. It does nothing before Run.
func NewManager(cfg Config) *Manager {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	m := &Manager{cfg: cfg, workers: map[string]*worker{}, set: &desired.Set{},
		starts: slots.New(max(2, runtime.NumCPU()), startTurn, 0), pulls: pull.New(cfg.Runtime, cfg.Now),
		limits: make(chan struct{}, 1),
		events: &recorder{node: cfg.NodeName, report: cfg.Report, now: cfg.Now, log: cfg.Log, known: map[eventKey]*knownEvent{}},
	}
	m.streams = stream.New(stream.Config{Runtime: cfg.Runtime, Pod: m.streamPod, Logs: cfg.Logs, Dial: cfg.Dial, Now: cfg.Now, Log: cfg.Log})
	return m
}

// ServeStream serves one stream to a pod and closes it.
func (m *Manager) ServeStream(ctx context.Context, req wire.StreamRequest, s wire.Stream) {
	m.streams.Serve(ctx, req, s)
}

// streamPod is what streams have to know of a pod.
func (m *Manager) streamPod(uid string) (stream.Pod, bool) {
	w := m.worker(uid)
	if w == nil {
		return stream.Pod{}, false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	last := w.mem.last // each step makes a new one; nothing in it changes
	p := stream.Pod{UID: uid, Object: w.pod, Status: &last}
	if sb := w.mem.sandbox; sb != nil {
		p.Place = &stream.Place{Netns: sb.netns}
	}
	return p, true
}

// Run works until ctx ends; pods that run keep running then.
func (t *Manager) Run(ctx context.Context) error {
	events := t.cfg.Runtime.Events(ctx)
	t.mu.Lock()
	t.ctx = ctx
	t.mu.Unlock()
	t.reconcile()
	t.wg.Add(1)
	go func() {
		defer t.wg.Done()
		t.watchLimits(ctx)
	}()
	for {
		select {
		case <-ctx.Done():
			t.mu.Lock()
			t.ctx = nil
			t.mu.Unlock()
			t.await()
			return nil
		case uid, ok := <-events:
			if !ok {
				events = nil
				continue
			}
			t.wake(uid)
		}
	}
}

// stopLimit is how long the workers may take to stop. Each has its own limits; one that hangs in the kernel keeps none, and
// must not keep the agent.
const stopLimit = 20 * time.Second

// await waits until the workers have stopped, or stopLimit has passed.
func (t *Manager) await() {
	stopped := make(chan struct{})
	go func() {
		t.wg.Wait()
		close(stopped)
	}()
	late := time.NewTimer(stopLimit)
	defer late.Stop()
	select {
	case <-stopped:
	case <-late.C:
		t.mu.Lock()
		defer t.mu.Unlock()
		for uid := range t.workers {
			t.cfg.Log.Error("the work on a pod does not stop, going without it", "pod", uid, "waited", stopLimit)
		}
	}
}

// Apply gives the manager a new desired set. A pod that leaves it is stopped and removed. complete: the set is known to be
// all that the hub wants, so that what an earlier life of the agent has left and the set does not name goes as well.
// Without it (the cache may have been damaged, and the hub is out of reach) such pods go on, from their copies on disk.
func (t *Manager) Apply(set *desired.Set, complete bool) {
	t.mu.Lock()
	t.set = set
	t.complete = t.complete || complete
	workers := make([]*worker, 0, len(t.workers))
	for _, w := range t.workers {
		workers = append(workers, w)
	}
	t.mu.Unlock()
	t.reconcile()
	for _, w := range workers {
		if w.affected(set) {
			w.poke()
		}
	}
}

// reconcile has a worker for each pod that is wanted or that there is something left of.
func (t *Manager) reconcile() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ctx == nil {
		return
	}
	for uid, pod := range t.set.Pods {
		t.ensure(uid, pod)
	}
	entries, err := os.ReadDir(t.cfg.Dir)
	if err != nil && !os.IsNotExist(err) {
		t.cfg.Log.Error("pod directories cannot be listed", "dir", t.cfg.Dir, "error", err)
	}
	for _, e := range entries {
		t.ensure(e.Name(), nil)
	}
}

// ensure starts a worker for a pod unless it has one; pod is nil for one that is not wanted any more.
func (t *Manager) ensure(uid string, pod *corev1.Pod) {
	if t.workers[uid] != nil {
		return
	}
	w := newWorker(t, uid, pod)
	contain.Go(t.cfg.Log, "podrun/load", uid, w.load) // before any worker asks what the others have of the node
	t.workers[uid] = w
	t.limitsChanged()
	ctx := t.ctx
	t.wg.Add(1)
	go func() {
		defer t.wg.Done()
		w.run(ctx)
		t.mu.Lock()
		delete(t.workers, uid)
		again := t.ctx != nil && t.set.Pods[uid] != nil
		if again { // wanted once more while the worker was leaving
			t.ensure(uid, t.set.Pods[uid])
		}
		t.mu.Unlock()
		t.portsChanged()
	}()
}

// Refresh has every pod looked at: the node's addresses have changed.
func (t *Manager) Refresh() { t.wake("") }

// wake makes one worker, or all of them, take a step.
func (t *Manager) wake(uid string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for id, w := range t.workers {
		if uid == "" || uid == id {
			w.poke()
		}
	}
}

func (t *Manager) worker(uid string) *worker {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.workers[uid]
}

// current is the set as of now, and whether absence from it means something.
func (t *Manager) current() (*desired.Set, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.set, t.complete
}

func (t *Manager) portsChanged() {
	if t.cfg.PortsChanged != nil {
		t.cfg.PortsChanged()
	}
}

// node is this node as pods find it now.
func (t *Manager) node() podspec.Node {
	return podspec.Node{Name: t.cfg.NodeName, IPs: t.cfg.NodeIPs(), Allocatable: t.cfg.Allocatable, Memory: t.cfg.Memory,
		PodPids: t.cfg.PodPidsLimit, Host: t.cfg.Host, DNS: t.cfg.DNS}
}

// HostPorts are the node's ports that its running pods ask for.
func (t *Manager) HostPorts() []svcproxy.HostPort {
	t.mu.Lock()
	workers := make([]*worker, 0, len(t.workers))
	for _, w := range t.workers {
		workers = append(workers, w)
	}
	t.mu.Unlock()
	var out []svcproxy.HostPort
	for _, w := range workers {
		pod, ips := w.address()
		if pod == nil || pod.Spec.HostNetwork || len(ips) == 0 {
			continue
		}
		target, err := netip.ParseAddr(ips[0])
		if err != nil {
			continue
		}
		for _, c := range slices.Concat(pod.Spec.Containers, sidecars(pod)) {
			for _, p := range c.Ports {
				if p.HostPort == 0 || p.Protocol == corev1.ProtocolSCTP { // the hub refuses that one
					continue
				}
				proto := svcproxy.TCP
				if p.Protocol == corev1.ProtocolUDP {
					proto = svcproxy.UDP
				}
				host, _ := netip.ParseAddr(p.HostIP) // the zero Addr: all of the node's
				out = append(out, svcproxy.HostPort{HostIP: host, Port: uint16(p.HostPort), Protocol: proto,
					Target: netip.AddrPortFrom(target, uint16(p.ContainerPort))})
			}
		}
	}
	return out
}

// Running counts the pods that the manager looks after.
func (t *Manager) Running() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.workers)
}
