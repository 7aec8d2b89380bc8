package podrun

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/edgeagent/podrun/lifecycle"
	"petrel.dev/petrel/edgeagent/podrun/pull"
	"petrel.dev/petrel/edgeagent/podrun/resize"
	"petrel.dev/petrel/edgeagent/volume"
	"petrel.dev/petrel/internal/contain"
)

// worker drives one pod: it observes, lets step decide, acts, and observes again. Its fields belong to its own goroutine: what
// runs beside it has the handle only, and answers by its inbox.
type worker struct {
	*handle

	mem lifecycle.Observed
	pod *corev1.Pod // newest known; nil: nothing known but the UID

	hurry map[string]context.CancelFunc // by container ID: ends the grace of one that is being stopped
	pulls map[string]*pulling           // by container name
	stuck map[string]bool               // steps that were abandoned and are not back yet

	pullTurn pull.Turn
	faults   int // panics since the last step without one

	published []byte                        // the report that went out last
	saved     []byte                        // the pod as it is on disk; nil: not known yet
	probing   map[string]context.CancelFunc // by container ID: ends its probes
	seen      uint64                        // the number of what it was last compared with; a pointer would keep an old set in memory
	mounted   []any                         // the objects that the volumes were last made of
	active    time.Time                     // the pod counts as active from then on; zero: not known yet
	wanted    bool                          // the pod has been in the set in this life of the agent, so its absence means something

	announced bool // an event that it waits for an earlier pod of its name has been recorded

	allocation  resize.Allocation // none: the node has not let the pod in yet
	allocated   *corev1.Pod       // allocatedOf with the allocation; nil: nothing is allocated yet
	allocatedOf *corev1.Pod       // nil: the allocation has changed
}

// newWorker makes a worker. pod is nil for one of which only the directory is left.
func newWorker(m *Manager, uid string, pod *corev1.Pod) *worker {
	w := &worker{handle: &handle{m: m, uid: uid, dir: filepath.Join(m.cfg.Dir, uid), inbox: newInbox()}, pod: pod,
		hurry: map[string]context.CancelFunc{}, pulls: map[string]*pulling{}, stuck: map[string]bool{}, pullTurn: pull.NewTurn(), probing: map[string]context.CancelFunc{},
		mem: lifecycle.Observed{Images: map[string]lifecycle.Image{}, Starts: map[string]lifecycle.Failure{}, Backoffs: map[string]lifecycle.Backoff{},
			Stops: map[string]time.Time{}, Again: map[string]lifecycle.Again{}, Probes: map[string]lifecycle.Probe{}, Hooks: map[string]bool{}, Messages: map[string]string{}}}
	w.show()
	return w
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
		pause(ctx, w.panicked(err))
	}
}

// rounds steps until the pod is removed or ctx ends.
func (w *worker) rounds(ctx context.Context) {
	log := w.m.cfg.Log
	for steps := 0; ctx.Err() == nil; steps++ {
		w.take(ctx) // also when the pod cannot be observed: what hangs comes back by the inbox
		d := w.target()
		if d.Deleting() {
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
		case w.heldByName(d, containers):
		default:
			w.admit(d, containers)
			d.Pod = w.allocate(d)
			o := w.mem // its maps are the worker's: step only reads them
			o.Containers = containers
			now := w.m.cfg.Now()
			o.Active = w.activeFor(d.Pod, o.Last.StartTime, now)
			dec := lifecycle.Step(d, o, now)
			w.probe(ctx, d.Pod, containers, dec.State)
			w.publish(d, dec)
			if dec.State == lifecycle.Removed && d.Gone {
				w.forget()
				return
			}
			progress := false
			for _, a := range dec.Actions {
				if w.act(ctx, d, o, a) {
					progress = true
				}
			}
			if progress && steps < maxSteps {
				continue
			}
			wait = dec.Wake
			if steps >= maxSteps {
				log.Error("pod does not settle, slowing down", "pod", d.Pod.Name, "namespace", d.Pod.Namespace, "state", dec.State)
				wait = w.m.cfg.Now().Add(time.Second)
			}
			w.faults = 0
		}
		steps = -1
		w.show()
		if want := w.m.want.Load(); want.number != w.seen && w.affected(want.set) {
			continue // it came while this round was under way
		}
		w.sleep(ctx, wait)
	}
}

// activeFor is how long the pod has been active. In one life of the agent the monotonic clock counts, so that a clock
// which is set ends no deadline. Of an earlier life only the start is known, by a clock that may have been wrong:
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

// sleep waits for the inbox, the time, or the end.
func (w *worker) sleep(ctx context.Context, until time.Time) {
	var timer <-chan time.Time
	if !until.IsZero() {
		t := time.NewTimer(max(until.Sub(w.m.cfg.Now()), 0) + time.Millisecond)
		defer t.Stop()
		timer = t.C
	}
	select {
	case <-ctx.Done():
	case <-w.inbox.ready:
	case <-timer:
	}
}

// target reads the pod from the set, or from disk once it has left the set.
func (w *worker) target() lifecycle.Target {
	defer w.show()
	want := w.m.want.Load()
	set, pod := want.set, want.set.Pods[w.uid]
	if want.number != w.seen { // what was missing may have come
		w.seen = want.number
		for name, f := range w.mem.Starts {
			if f.Reason == lifecycle.ReasonConfig {
				delete(w.mem.Starts, name)
			}
		}
		if !w.mem.Blocked.Retry.IsZero() {
			w.mem.Blocked.Retry = time.Time{}
		}
		if pod != nil {
			if now := volume.Objects(pod, set); !slices.Equal(now, w.mounted) {
				w.mem.Volumes, w.mounted = false, now
			}
		}
	}
	if pod != nil {
		w.pod, w.wanted = pod, true
		return lifecycle.Target{Pod: pod}
	}
	if w.pod == nil {
		w.pod = w.unknownPod()
	}
	gone := want.complete || w.wanted || superseded(set, w.pod)
	if gone && w.pod.DeletionTimestamp == nil { // for the next life of the agent, which may have no link to the hub
		p := w.pod.DeepCopy()
		p.DeletionTimestamp = &metav1.Time{Time: w.m.cfg.Now()}
		w.pod = p
		w.save(p)
	}
	return lifecycle.Target{Pod: w.pod, Gone: gone}
}

// unknownPod stands for a pod of which only the directory is left.
func (w *worker) unknownPod() *corev1.Pod {
	p := &corev1.Pod{}
	p.UID, p.Name, p.Namespace = uidOf(w.uid), w.uid, "unknown"
	return p
}
