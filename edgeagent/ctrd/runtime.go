package ctrd

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	apievents "github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/log"
	"github.com/containerd/typeurl/v2"
	"golang.org/x/sync/errgroup"

	"petrel.dev/petrel/edgeagent/cgroup"
	"petrel.dev/petrel/edgeagent/cruntime"
	"petrel.dev/petrel/edgeagent/ctrd/shim"
	"petrel.dev/petrel/edgeagent/ctrd/underway"
	"petrel.dev/petrel/edgeagent/podlog"
	"petrel.dev/petrel/edgeagent/programs"
	"petrel.dev/petrel/edgeagent/storage"
	"petrel.dev/petrel/internal/contain"
	"petrel.dev/petrel/internal/safefile"
)

// Config of a Runtime.
type Config struct {
	// Address of a containerd socket. Empty: a private child; of a build without programs inside, the system's when one answers there.
	Address string
	// Private says that the system's containerd is never used.
	Private bool
	// DataDir holds what must survive a reboot.
	DataDir string
	// RunDir holds what a reboot wipes; empty: DefaultRunDir(DataDir).
	RunDir string
	// Namespace of containerd; empty: "petrel".
	Namespace string
	// PlainHTTP names registries (host or host:port) that speak HTTP; those on localhost are taken to anyway.
	PlainHTTP []string
	// Disk is how much of the disk stays free when images come; the zero value stands for storage.Default.
	Disk storage.Policy
	Log  *slog.Logger
}

// runDirs holds the run directories of all agents.
const runDirs = "/run/petrel"

// ownDirs are the directories that nobody but the agent may enter.
func (c Config) ownDirs() []string {
	dirs := []string{c.DataDir, c.RunDir, filepath.Join(c.RunDir, "pods"), filepath.Join(c.RunDir, "fifo")}
	if filepath.Dir(c.RunDir) == runDirs {
		dirs = append(dirs, runDirs)
	}
	return dirs
}

// DefaultRunDir is the directory in memory that belongs to a data directory.
func DefaultRunDir(dataDir string) string {
	if abs, err := filepath.Abs(dataDir); err == nil {
		dataDir = abs
	}
	sum := sha256.Sum256([]byte(dataDir))
	return filepath.Join(runDirs, hex.EncodeToString(sum[:6]))
}

// Runtime runs containers with containerd.
type Runtime struct {
	cfg         Config
	address     string // containerd's socket
	client      *client.Client
	child       *child       // nil: containerd is not ours
	programs    programs.Set // the machine's when containerd is not ours
	snapshotter string
	imageDir    string // on the file system of snapshotter
	cgroups     cgroup.Tree
	// leastOOMScore is the lowest score for the out-of-memory killer that this process may give a container.
	leastOOMScore int
	hostOnce      sync.Once
	host          cruntime.Host // valid once hostOnce is done
	pump          *podlog.Pump
	opened        time.Time
	pulls         underway.Pulls

	mu       sync.Mutex
	pods     map[string]string        // container ID → pod UID
	tasks    map[string]runningTask   // by container ID
	starting map[string]bool          // container IDs between create and start
	ending   map[string]chan struct{} // by container ID: its end is being written down; closed when it is
	subs     map[chan string]struct{}

	inits sync.Map   // pod UID → *sync.Mutex, held while its first process is made sure of
	turns shim.Turns // of what needs the shim of a pod
}

// Open connects to containerd, starting it when there is none. Images can be worked on at once, beside another Runtime
// on the same directories; containers belong to the one that runs Run.
func Open(ctx context.Context, cfg Config) (*Runtime, error) {
	if cfg.Namespace == "" {
		cfg.Namespace = "petrel"
	}
	if cfg.RunDir == "" {
		cfg.RunDir = DefaultRunDir(cfg.DataDir)
	}
	if cfg.Disk == (storage.Policy{}) {
		cfg.Disk = storage.Default()
	}
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("containerd: running containers needs root; start the agent as root or with sudo")
	}
	if err := log.SetLevel("fatal"); err != nil { // the client's own chatter; what matters comes back as errors
		return nil, err
	}
	for _, d := range cfg.ownDirs() {
		if err := safefile.PrivateDir(d, cfg.Log); err != nil {
			return nil, fmt.Errorf("containerd: %w", err)
		}
	}
	r := &Runtime{cfg: cfg, opened: time.Now(), cgroups: cgroup.Detect(cgroup.Root, "/proc/cgroups"), leastOOMScore: spareSelf(cfg.Log), pods: map[string]string{}, tasks: map[string]runningTask{}, starting: map[string]bool{}, ending: map[string]chan struct{}{}, subs: map[chan string]struct{}{}}
	address := cfg.Address
	if address == "" && !cfg.Private && len(programs.Embedded()) == 0 && answers(ctx, systemSocket) {
		address = systemSocket
	}
	if address == "" {
		r.programs = programs.In(filepath.Join(cfg.DataDir, "bin"))
		c, err := startChild(ctx, filepath.Join(cfg.DataDir, "containerd"), filepath.Join(cfg.RunDir, "containerd"), r.programs, r.leastOOMScore, cfg.Log)
		if err != nil {
			return nil, err
		}
		r.child, address = c, c.socket
	} else if !answers(ctx, address) {
		return nil, fmt.Errorf("containerd: nothing answers at %s; is containerd running there? Leave the address out to let Petrel run its own", address)
	}
	r.address = address
	var err error
	if r.client, err = client.New(address, client.WithDefaultNamespace(cfg.Namespace), client.WithTimeout(10*time.Second)); err != nil {
		return nil, fmt.Errorf("containerd at %s: %w", address, err)
	}
	if r.snapshotter, err = r.pickSnapshotter(ctx); err != nil {
		return nil, err
	}
	if r.pump, err = podlog.NewPump(cfg.Log); err != nil {
		return nil, err
	}
	return r, nil
}

// Logs are the container logs that the runtime keeps.
func (r *Runtime) Logs() *podlog.Pump { return r.pump }

// Private reports whether containerd is this agent's own.
func (r *Runtime) Private() bool { return r.child != nil }

// Started reports whether containerd was started by this very process, rather than found running.
func (r *Runtime) Started() bool { return r.child != nil && r.child.fresh }

// Version is containerd's.
func (r *Runtime) Version(ctx context.Context) (string, error) {
	v, err := r.client.Version(r.ns(ctx))
	return v.Version, err
}

func (r *Runtime) ns(ctx context.Context) context.Context {
	return namespaces.WithNamespace(ctx, r.cfg.Namespace)
}

// pickSnapshotter prefers overlayfs; where the kernel or the file system cannot, plain copies must do.
func (r *Runtime) pickSnapshotter(ctx context.Context) (string, error) {
	resp, err := r.client.IntrospectionService().Plugins(ctx, "type==io.containerd.snapshotter.v1")
	if err != nil {
		return "", fmt.Errorf("containerd plugins: %w", err)
	}
	usable, roots := map[string]bool{}, map[string]string{}
	for _, p := range resp.Plugins {
		usable[p.ID], roots[p.ID] = p.InitErr == nil, p.Exports["root"]
	}
	for _, name := range []string{"overlayfs", "native"} {
		if usable[name] {
			r.imageDir = r.cfg.DataDir
			if _, err := storage.Look(roots[name]); err == nil { // not of another machine, or of another mount namespace
				r.imageDir = roots[name]
			}
			return name, nil
		}
	}
	return "", fmt.Errorf("containerd offers neither the overlayfs nor the native snapshotter; enable one in its configuration")
}

// adoptLogs goes on with the logs of containers that an earlier life of the agent has started, and finishes those of
// containers that ended meanwhile.
func (r *Runtime) adoptLogs(ctx context.Context) error {
	list, err := r.Containers(ctx, "")
	if err != nil {
		return err
	}
	for _, c := range list {
		switch {
		case c.LogPath == "":
		case c.State == cruntime.Exited:
			r.pump.Finish(c.LogPath)
		default:
			if err := r.pump.Add(c.LogPath); err != nil {
				r.cfg.Log.Warn("container log not followed", "container", c.ID, "error", err)
			}
		}
	}
	return nil
}

// Run follows containerd's events and the container logs, and keeps a private containerd running, until ctx ends. It
// leaves containerd and the containers as they are.
func (r *Runtime) Run(ctx context.Context) error {
	r.tidyPipes()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		for ; ; time.Sleep(time.Second) { // containerd may have died since Open
			err := contain.Do(r.cfg.Log, "ctrd/adopt", "container logs", func() error { return r.adoptLogs(ctx) })
			if ctx.Err() != nil {
				return nil
			}
			if err == nil {
				return r.pump.Run(ctx)
			}
			r.cfg.Log.Warn("container logs not adopted yet", "error", err)
		}
	})
	g.Go(func() error { return r.watch(ctx) })
	g.Go(func() error { return r.runRescue(ctx) })
	if r.child != nil {
		g.Go(func() error { return r.child.supervise(ctx, func() { r.publish("") }) })
	}
	return g.Wait()
}

// tidyPipes deletes the pipes of processes that an earlier life of the agent ran in containers, and was killed meanwhile.
func (r *Runtime) tidyPipes() {
	dir := filepath.Join(r.cfg.RunDir, "fifo")
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if fi, err := e.Info(); err == nil && fi.ModTime().Before(r.opened) {
			_ = os.RemoveAll(filepath.Join(dir, e.Name()))
		}
	}
}

// Close ends the connection. stop: a private containerd is stopped as well; its containers must have ended before.
func (r *Runtime) Close(stop bool) error {
	err := r.client.Close()
	if stop && r.child != nil {
		r.child.stop()
	}
	return err
}

// watch hands containerd's events on; it subscribes again when containerd was away.
func (r *Runtime) watch(ctx context.Context) error {
	for ctx.Err() == nil {
		sub, cancel := context.WithCancel(r.ns(ctx))
		events, errs := r.client.Subscribe(sub, `namespace=="`+r.cfg.Namespace+`",topic~="^/(tasks/(exit|oom|start)|images/(create|update))$"`)
		r.publish("") // whatever happened while nobody listened
		for open := true; open; {
			select {
			case <-ctx.Done():
				open = false
			case err := <-errs:
				if ctx.Err() == nil {
					r.cfg.Log.Warn("containerd events interrupted", "error", err)
				}
				open = false
			case e := <-events:
				contain.Go(r.cfg.Log, "ctrd/event", e.Topic, func() { r.event(e.Event) })
			}
		}
		cancel()
		select {
		case <-ctx.Done():
		case <-time.After(500 * time.Millisecond):
		}
	}
	return nil
}

func (r *Runtime) event(any typeurl.Any) {
	v, err := typeurl.UnmarshalAny(any)
	if err != nil {
		return
	}
	switch e := v.(type) {
	case *apievents.TaskExit:
		if e.ID == e.ContainerID { // not an exec's
			r.publish(r.podOf(e.ContainerID))
		}
	case *apievents.TaskOOM:
		r.publish(r.podOf(e.ContainerID))
	case *apievents.TaskStart:
		r.publish(r.podOf(e.ContainerID))
	case *apievents.ImageCreate, *apievents.ImageUpdate: // some pod may wait for it
		r.publish("")
	}
}

func (r *Runtime) podOf(container string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.pods[container]
}

// publish notifies every listener that a pod may have changed. One that does not keep up is asked to look at all pods.
func (r *Runtime) publish(uid string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.subs {
		select {
		case c <- uid:
		default:
			select {
			case <-c:
			default:
			}
			select {
			case c <- "":
			default:
			}
		}
	}
}

// Events implements podrun.Runtime.
func (r *Runtime) Events(ctx context.Context) <-chan string {
	c := make(chan string, 64)
	r.mu.Lock()
	r.subs[c] = struct{}{}
	r.mu.Unlock()
	context.AfterFunc(ctx, func() {
		r.mu.Lock()
		delete(r.subs, c)
		close(c)
		r.mu.Unlock()
	})
	return c
}

var _ cruntime.Runtime = (*Runtime)(nil)
