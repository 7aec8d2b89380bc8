package podrun

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/edgeagent/desired"
	"petrel.dev/petrel/edgeagent/podrun/lifecycle"
	"petrel.dev/petrel/edgeagent/podrun/stream"
	"petrel.dev/petrel/edgeagent/volume"
	"petrel.dev/petrel/internal/contain"
)

// handle is the part of a worker that any goroutine may use: it names the pod, shows what the worker has published of it, and
// takes results. The Manager and the jobs beside a worker have nothing else of it, so only the worker can write its state.
type handle struct {
	m     *Manager
	uid   string
	dir   string // the pod's own directory
	inbox inbox
	// shown is never nil. The worker alone replaces it.
	shown atomic.Pointer[snapshot]
	// condemned is set once, by the one who may evict the pod.
	condemned atomic.Bool
	jobs      sync.WaitGroup // beside the worker, which waits for them at its end
}

// snapshot is what a worker shows of its pod. It is immutable.
type snapshot struct {
	pod      *corev1.Pod        // newest known; nil: nothing is known but the UID
	last     *corev1.PodStatus  // reported last; never nil
	sandbox  *lifecycle.Sandbox // nil: not made sure of yet, or given back
	admitted bool               // the node has let the pod in
	rejected bool               // it never will
	released bool               // of a pod that has ended: sandbox and volumes are given back
	removed  bool               // of a deleted pod: nothing of it is left
	wanted   bool               // the pod has been in the set in this life of the agent
	retries  bool               // something has failed that a new set may mend
	// allocated is the pod with what the node has allocated to it; nil: nothing yet.
	allocated *corev1.Pod
	deferred  bool          // its spec asks for something else than is allocated, and waits
	volumes   []any         // the objects that its volumes were last made of
	old       chan struct{} // closed when the worker shows something newer, which it does at every step
}

// job runs f beside the worker, which gets what then makes of its error; a panic in f is an error like any other.
func (h *handle) job(site string, f func() error, then func(error) result) {
	h.jobs.Go(func() {
		err := contain.Do(h.m.cfg.Log, site, h.uid, f)
		contain.Go(h.m.cfg.Log, "podrun/result", h.uid, func() { h.inbox.put(then(err)) })
	})
}

// affected reports whether a new set is any news to the pod.
func (h *handle) affected(set *desired.Set) bool {
	s, pod := h.shown.Load(), set.Pods[h.uid]
	return pod == nil || pod != s.pod || s.retries || !slices.Equal(volume.Objects(pod, set), s.volumes)
}

// occupies returns the pod if it takes of the node what it asks for. One that has ended, or that the hub has taken away
// by force, takes nothing any more.
func (h *handle) occupies(want *wanted) *corev1.Pod {
	s := h.shown.Load()
	let := s.admitted || s.last.StartTime != nil && !s.rejected
	if s.pod == nil || !let || s.removed || lifecycle.Ended(s.last.Phase) {
		return nil
	}
	if want.set.Pods[h.uid] == nil && (want.complete || s.wanted) {
		return nil
	}
	if s.allocated != nil {
		return s.allocated
	}
	return s.pod
}

// address returns the pod and where it is in the network; no addresses: it has no sandbox.
func (h *handle) address() (*corev1.Pod, []string) {
	s := h.shown.Load()
	if s.sandbox == nil {
		return nil, nil
	}
	return s.pod, s.sandbox.IPs
}

// stream is what streams have to know of the pod.
func (h *handle) stream() stream.Pod {
	s := h.shown.Load()
	p := stream.Pod{UID: h.uid, Object: s.pod, Status: s.last}
	if s.sandbox != nil {
		p.Place = &stream.Place{Netns: s.sandbox.Netns, IPs: s.sandbox.IPs}
	}
	return p
}

// pause waits, whatever else happens, until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
