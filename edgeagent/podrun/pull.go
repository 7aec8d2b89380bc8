package podrun

import (
	"context"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/edgeagent/podrun/pull"
	"petrel.dev/petrel/internal/kube"
)

// pull has the image of a container's next attempt ready, as its policy wants; it works beside the worker.
func (w *worker) pull(ctx context.Context, pod *corev1.Pod, a action) {
	c := kube.ContainerNamed(pod, a.container)
	if c == nil {
		return
	}
	set, _ := w.m.current()
	ctx, cancel := context.WithCancel(ctx)
	job := &pulling{cancel}
	w.mu.Lock()
	old := w.mem.images[c.Name]
	if old.ref != c.Image {
		old = imageState{}
	}
	old.ref, old.inFlight = c.Image, true
	w.mem.images[c.Name] = old
	if earlier := w.pulls[c.Name]; earlier != nil { // of another image
		earlier.cancel()
	}
	w.pulls[c.Name] = job
	w.mu.Unlock()
	r := pull.Request{Pod: pod, Container: c, Secrets: set, Turn: w.pullTurn,
		Before: pull.Failure{Reason: old.fail.reason, Message: old.fail.message, Retry: old.fail.retry, Delay: old.fail.delay},
		Event:  func(kind, reason, format string, args ...any) { w.m.events.pod(pod, c, kind, reason, format, args...) }}
	var f pull.Failure
	w.job("podrun/pull", func() error {
		f = w.m.pulls.Fetch(ctx, r)
		return nil
	}, func(err error) {
		if err != nil { // a panic
			f = w.m.pulls.Failed(ctx, r, err)
		}
		fail := failure{fault: err != nil, reason: f.Reason, message: f.Message, retry: f.Retry, delay: f.Delay}
		w.mu.Lock()
		if w.pulls[c.Name] == job {
			delete(w.pulls, c.Name)
			w.mem.images[c.Name] = imageState{ref: c.Image, ready: fail.reason == "" && ctx.Err() == nil, fail: fail}
		}
		w.mu.Unlock()
		cancel()
		w.poke()
	})
}

// pulling is an image on its way to this node.
type pulling struct{ cancel context.CancelFunc }

// stopPulls gives up what the pod is waiting for: nobody wants it any more, and the link is for others.
func (w *worker) stopPulls() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.pulls {
		p.cancel()
	}
}
