package podrun

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"hash/fnv"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/edgeagent/cruntime"
	"petrel.dev/petrel/edgeagent/desired"
	"petrel.dev/petrel/edgeagent/podrun/pull"
	"petrel.dev/petrel/edgeagent/volume"
	"petrel.dev/petrel/internal/contain"
	"petrel.dev/petrel/internal/durable"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/safefile"
	"petrel.dev/petrel/internal/wire"
)

// worker drives one pod: it observes, lets step decide, acts, and observes again.
type worker struct {
	m     *Manager
	uid   string
	dir   string
	nudge chan struct{} // capacity 1

	mu   sync.Mutex // guards mem and pod: actions that take long run beside the worker
	mem  observed
	pod  *corev1.Pod // newest known; nil: nothing known but the UID
	jobs sync.WaitGroup

	hurry map[string]context.CancelFunc // by container ID: ends the grace of one that is being stopped; guarded by mu
	pulls map[string]*pulling           // by container name; guarded by mu
	stuck map[string]bool               // steps under way, or abandoned and not back yet; guarded by mu

	pullTurn pull.Turn
	faults   int // panics since the last step without one

	published []byte // the report that went out last
	saved     []byte // the pod as it is on disk
	probes    map[string]*probeJob
	setSeen   *desired.Set
	mounted   []any     // what the volumes were last made of
	active    time.Time // the pod counts as active from then on; zero: not known yet
	wanted    bool      // the pod has been in the set in this life of the agent, so its absence means something
}

func newWorker(t *Manager, uid string, pod *corev1.Pod) *worker {
	return &worker{m: t, uid: uid, dir: filepath.Join(t.cfg.Dir, uid), nudge: make(chan struct{}, 1), pod: pod,
		probes: map[string]*probeJob{}, hurry: map[string]context.CancelFunc{}, pulls: map[string]*pulling{}, stuck: map[string]bool{}, pullTurn: pull.NewTurn(),
		mem: observed{images: map[string]imageState{}, starts: map[string]failure{}, backoffs: map[string]backoff{},
			stops: map[string]time.Time{}, probes: map[string]probeState{}, hooks: map[string]bool{}, messages: map[string]string{}}}
}

// poke makes the worker take a step soon.
func (w *worker) poke() {
	select {
	case w.nudge <- struct{}{}:
	default:
	}
}

// maxSteps bounds the steps between two waits: a step that keeps asking for the same thing must not eat a core.
const maxSteps = 50

// run steps until the pod is removed or ctx ends. A panic ends only the round that it happens in.
func (w *worker) run(ctx context.Context) {
	defer w.jobs.Wait()
	defer w.stopProbes()
	for ctx.Err() == nil {
		err := contain.Do(w.m.cfg.Log, "podrun/worker", w.uid, func() error {
			w.rounds(ctx)
			return nil
		})
		if err == nil {
			return
		}
		w.pause(ctx, w.panicked(err))
	}
}

// pause waits, whatever else happens, until ctx ends.
func (w *worker) pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// rounds steps until the pod is removed or ctx ends.
func (w *worker) rounds(ctx context.Context) {
	log := w.m.cfg.Log
	for steps := 0; ctx.Err() == nil; steps++ {
		d := w.target()
		if d.deleting() {
			w.stopPulls()
		}
		wait := time.Time{}
		containers, err := w.observe(ctx, d)
		var fault *contain.Panic
		switch {
		case errors.As(err, &fault):
			wait = w.m.cfg.Now().Add(w.panicked(err))
		case err != nil:
			if ctx.Err() == nil {
				log.Warn("pod cannot be observed", "pod", w.uid, "error", err)
			}
			wait = w.m.cfg.Now().Add(2 * time.Second)
		default:
			w.m.admit(w, d, containers)
			w.mu.Lock()
			o := w.mem.clone(containers)
			w.mu.Unlock()
			now := w.m.cfg.Now()
			o.active = w.activeFor(d.pod, o.last.StartTime, now)
			dec := step(d, o, now)
			w.probe(ctx, d.pod, containers, dec.state)
			w.publish(d, dec)
			if dec.state == Removed && d.gone {
				w.forget()
				return
			}
			progress := false
			for _, a := range dec.actions {
				if w.act(ctx, d, o, a) {
					progress = true
				}
			}
			if progress && steps < maxSteps {
				continue
			}
			wait = dec.wake
			if steps >= maxSteps {
				log.Error("pod does not settle, slowing down", "pod", d.pod.Name, "namespace", d.pod.Namespace, "state", dec.state)
				wait = w.m.cfg.Now().Add(time.Second)
			}
			w.faults = 0
		}
		steps = -1
		w.sleep(ctx, wait)
	}
}

// activeFor is how long the pod has been active. In one life of the agent the monotonic clock counts, so that a clock
// which is set ends nobody's deadline. Of an earlier life only the start is known, by a clock that may have been wrong:
// it was no earlier than the pod's creation, which the hub's clock has stamped, and it is not in the future.
func (w *worker) activeFor(pod *corev1.Pod, start *metav1.Time, now time.Time) time.Duration {
	if w.active.IsZero() {
		w.active = now
		if start != nil {
			from := start.Time
			if pod.CreationTimestamp.After(from) {
				from = pod.CreationTimestamp.Time
			}
			w.active = now.Add(-max(now.Sub(from), 0))
		}
	}
	return now.Sub(w.active)
}

// sleep waits for a nudge, the time, or the end.
func (w *worker) sleep(ctx context.Context, until time.Time) {
	var timer <-chan time.Time
	if !until.IsZero() {
		t := time.NewTimer(max(until.Sub(w.m.cfg.Now()), 0) + time.Millisecond)
		defer t.Stop()
		timer = t.C
	}
	select {
	case <-ctx.Done():
	case <-w.nudge:
	case <-timer:
	}
}

// target reads the pod from the set, or from disk once it has left the set.
func (w *worker) target() target {
	set, complete := w.m.current()
	pod := set.Pods[w.uid]
	w.mu.Lock()
	defer w.mu.Unlock()
	if set != w.setSeen { // what was missing may have come
		w.setSeen = set
		for name, f := range w.mem.starts {
			if f.reason == reasonConfig {
				delete(w.mem.starts, name)
			}
		}
		if !w.mem.blocked.retry.IsZero() {
			w.mem.blocked.retry = time.Time{}
		}
		if pod != nil {
			if now := volume.Objects(pod, set); !slices.Equal(now, w.mounted) {
				w.mem.volumes, w.mounted = false, now
			}
		}
	}
	if pod != nil {
		w.pod, w.wanted = pod, true
		w.save(pod)
		return target{pod: pod}
	}
	if w.pod == nil {
		w.pod = w.unknownPod()
	}
	gone := complete || w.wanted
	if gone && w.pod.DeletionTimestamp == nil { // for the next life of the agent, which may not hear of it from the hub
		p := w.pod.DeepCopy()
		p.DeletionTimestamp = &metav1.Time{Time: w.m.cfg.Now()}
		w.pod = p
		w.save(p)
	}
	return target{pod: w.pod, gone: gone}
}

// unknownPod stands for a pod of which only the directory is left.
func (w *worker) unknownPod() *corev1.Pod {
	p := &corev1.Pod{}
	p.UID, p.Name, p.Namespace = uidOf(w.uid), w.uid, "unknown"
	return p
}

// affected tells whether a new set is any news to the pod.
func (w *worker) affected(set *desired.Set) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	pod := set.Pods[w.uid]
	if pod == nil || pod != w.pod || len(w.mem.starts) > 0 || !w.mem.blocked.retry.IsZero() {
		return true
	}
	return !slices.Equal(volume.Objects(pod, set), w.mounted)
}

// observe asks the runtime for the pod's containers and reads the last words of those that have ended.
func (w *worker) observe(ctx context.Context, d target) ([]cruntime.Container, error) {
	list, err := w.containers(ctx)
	if err != nil {
		return nil, err
	}
	w.retryImages(ctx, d.pod)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mem.nodeIPs = w.m.cfg.NodeIPs()
	if sb := w.mem.sandbox; sb != nil && d.pod.Spec.HostNetwork {
		w.mem.sandbox = &sandboxState{id: sb.id, ips: w.mem.nodeIPs}
	}
	alive := map[string]bool{}
	for i := range list {
		c := &list[i]
		alive[c.ID] = true
		if c.State == cruntime.Exited {
			delete(w.mem.stops, c.ID)
			if _, ok := w.mem.messages[c.ID]; !ok {
				w.mem.messages[c.ID] = w.lastWords(d.pod, c)
			}
		}
	}
	for id := range w.mem.messages {
		if !alive[id] {
			delete(w.mem.messages, id)
		}
	}
	if d.deleting() && w.mem.stopFrom.IsZero() {
		w.mem.stopFrom = w.m.cfg.Now()
	}
	return list, nil
}

// containers asks the runtime for the pod's containers.
func (w *worker) containers(ctx context.Context) ([]cruntime.Container, error) {
	return atMost(w, ctx, lookLimit, "looking at the containers", func(ctx context.Context) ([]cruntime.Container, error) {
		return w.m.cfg.Runtime.Containers(ctx, w.uid)
	})
}

// retryImages ends the back-off of images that have come in another way, by an import for example.
func (w *worker) retryImages(ctx context.Context, pod *corev1.Pod) {
	w.mu.Lock()
	var failed []imageState
	for name, img := range w.mem.images {
		c := kube.ContainerNamed(pod, name)
		if img.fail.reason != "" && !img.fail.fault && !img.inFlight && c != nil && c.Image == img.ref && pull.Policy(c) != corev1.PullAlways {
			failed = append(failed, img)
		}
	}
	w.mu.Unlock()
	for _, img := range failed {
		if _, err := w.m.cfg.Runtime.Image(ctx, img.ref); err != nil {
			continue
		}
		w.mu.Lock()
		for name, have := range w.mem.images {
			if have.ref == img.ref && !have.inFlight {
				delete(w.mem.images, name)
			}
		}
		w.mu.Unlock()
	}
}

func (o observed) clone(containers []cruntime.Container) observed {
	c := o
	c.containers = containers
	c.images, c.starts, c.backoffs = copyMap(o.images), copyMap(o.starts), copyMap(o.backoffs)
	c.stops, c.probes, c.messages = copyMap(o.stops), copyMap(o.probes), copyMap(o.messages)
	c.hooks = copyMap(o.hooks)
	return c
}

func copyMap[K comparable, V any](m map[K]V) map[K]V {
	out := make(map[K]V, len(m))
	for k, v := range m {
		out[k] = v
	}
	return out
}

// address is where the pod is in the network, for host ports.
func (w *worker) address() (*corev1.Pod, []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mem.sandbox == nil {
		return nil, nil
	}
	return w.pod, w.mem.sandbox.ips
}

const (
	podFile    = "pod.json"
	statusFile = "status.json"
	maxOwnFile = 16 << 20 // bytes of either that are read
)

// load reads what an earlier life of the agent has left of the pod.
func (w *worker) load() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if b, err := safefile.Read(filepath.Join(w.dir, statusFile), maxOwnFile); err == nil {
		var st corev1.PodStatus
		if err := json.Unmarshal(b, &st); err != nil {
			w.m.cfg.Log.Warn("saved pod status is damaged, going on without", "pod", w.uid, "error", err)
		} else {
			w.mem.last = st
		}
	}
	if w.pod == nil {
		if b, err := safefile.Read(filepath.Join(w.dir, podFile), maxOwnFile); err == nil {
			var p corev1.Pod
			if json.Unmarshal(b, &p) == nil && string(p.UID) == w.uid {
				w.pod = &p
			}
		}
	}
}

// save keeps the pod on disk, so that it can still be stopped properly once the set has dropped it.
func (w *worker) save(pod *corev1.Pod) {
	if w.mem.removed {
		return
	}
	p := *pod
	p.ManagedFields, p.Status = nil, corev1.PodStatus{}
	b, err := json.Marshal(&p)
	if err != nil || bytes.Equal(b, w.saved) {
		return
	}
	if w.saved == nil {
		if old, err := safefile.Read(filepath.Join(w.dir, podFile), maxOwnFile); err == nil && bytes.Equal(old, b) {
			w.saved = b
			return
		}
	}
	w.saved = b
	w.write(podFile, b)
}

// write replaces a file of the pod's directory in one step. It need not survive a power cut: everything in it can be
// found out again.
func (w *worker) write(name string, b []byte) {
	path := filepath.Join(w.dir, name)
	err := os.MkdirAll(w.dir, 0o755)
	if err == nil {
		err = durable.WriteVolatile(path, b, 0o600)
	}
	if err != nil {
		w.m.cfg.Log.Warn("pod file not written", "file", path, "error", err)
	}
}

// publish reports the status when it has changed, and keeps it for the next step and the next life.
func (w *worker) publish(d target, dec decision) {
	status, err := json.Marshal(&dec.status)
	if err != nil {
		w.m.cfg.Log.Error("pod status does not encode", "pod", w.uid, "error", err)
		return
	}
	w.mu.Lock()
	before := w.mem.last
	w.mem.last, w.mem.state = dec.status, dec.state
	w.mu.Unlock()
	w.tellBackOff(d.pod, &before, &dec.status)
	if before.Phase != dec.status.Phase {
		w.m.limitsChanged()
		w.m.cfg.Log.Info("pod phase", "pod", d.pod.Name, "namespace", d.pod.Namespace, "phase", dec.status.Phase, "state", dec.state.String())
	}
	report, err := json.Marshal(wire.PodReport{Namespace: d.pod.Namespace, Name: d.pod.Name, Gone: dec.state == Removed, Status: status})
	if err != nil || bytes.Equal(report, w.published) {
		return
	}
	if dec.state != Removed {
		if old, err := safefile.Read(filepath.Join(w.dir, statusFile), maxOwnFile); err != nil || !bytes.Equal(old, status) {
			w.write(statusFile, status)
		}
	}
	if d.gone { // nobody waits for it
		w.published = report
		return
	}
	h := fnv.New64a()
	h.Write(report)
	if err := w.m.cfg.Report(wire.Object{ID: w.reportID(), Version: h.Sum64(), Namespace: d.pod.Namespace, Name: d.pod.Name, Data: report}); err != nil {
		w.m.cfg.Log.Warn("pod status not reported", "pod", d.pod.Name, "error", err)
		return
	}
	w.published = report
}

// tellBackOff records an event for each container that now has to wait before it is started again.
func (w *worker) tellBackOff(pod *corev1.Pod, before, now *corev1.PodStatus) {
	waits := func(st *corev1.ContainerStatus) bool {
		return st != nil && st.State.Waiting != nil && st.State.Waiting.Reason == reasonCrash
	}
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		if waits(kube.ContainerStatusNamed(now, c.Name)) && !waits(kube.ContainerStatusNamed(before, c.Name)) {
			w.m.events.pod(pod, &c, corev1.EventTypeWarning, "BackOff", "Back-off restarting failed container %s in pod %s_%s(%s)",
				c.Name, pod.Name, pod.Namespace, pod.UID)
		}
	}
}

func (w *worker) reportID() wire.ID { return wire.ID{Kind: wire.KindPodStatus, UID: w.uid} }

func (w *worker) forget() {
	if err := w.m.cfg.Forget(w.reportID()); err != nil {
		w.m.cfg.Log.Warn("pod report not dropped", "pod", w.uid, "error", err)
	}
}
