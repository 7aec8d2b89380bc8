package podrun

import (
	"context"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/edgeagent/podrun/pull"
	"petrel.dev/petrel/internal/kube"
)

// pull has the image of a container's next attempt ready, as its policy wants, by a job beside the worker.
func (w *worker) pull(ctx context.Context, pod *corev1.Pod, a action) {
	c := kube.ContainerNamed(pod, a.container)
	if c == nil {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	old := w.mem.images[c.Name]
	if old.ref != c.Image {
		old = imageState{}
	}
	old.ref, old.inFlight = c.Image, true
	w.mem.images[c.Name] = old
	if earlier := w.pulls[c.Name]; earlier != nil { // of another image
		earlier.cancel()
	}
	job := &pulling{cancel}
	w.pulls[c.Name] = job
	events, pulls := w.m.events, w.m.pulls
	r := pull.Request{Pod: pod, Container: c, Secrets: w.m.want.Load().set, Turn: w.pullTurn,
		Before: pull.Failure{Reason: old.fail.reason, Message: old.fail.message, Retry: old.fail.retry, Delay: old.fail.delay},
		Event:  func(kind, reason, format string, args ...any) { events.pod(pod, c, kind, reason, format, args...) }}
	var f pull.Failure
	w.job("podrun/pull", func() error {
		f = pulls.Fetch(ctx, r)
		return nil
	}, func(err error) result {
		defer cancel()
		if err != nil { // a panic
			f = pulls.Failed(ctx, r, err)
		}
		fail := failure{fault: err != nil, reason: f.Reason, message: f.Message, retry: f.Retry, delay: f.Delay}
		return pulled{container: c.Name, job: job, image: imageState{ref: c.Image, ready: fail.reason == "" && ctx.Err() == nil, fail: fail}}
	})
}

// pulling is an image on its way to this node.
type pulling struct{ cancel context.CancelFunc }

// pulled is the end of a pull.
type pulled struct {
	container string
	job       *pulling
	image     imageState
}

func (r pulled) apply(_ context.Context, w *worker) {
	if w.pulls[r.container] == r.job { // otherwise the container has another image by now
		delete(w.pulls, r.container)
		w.mem.images[r.container] = r.image
	}
}

// stopPulls gives up what the pod is waiting for: nobody wants it any more, and the link is for others.
func (w *worker) stopPulls() {
	for _, p := range w.pulls {
		p.cancel()
	}
}
