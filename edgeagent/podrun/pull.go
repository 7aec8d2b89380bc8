package podrun

import (
	"context"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/edgeagent/podrun/lifecycle"
	"petrel.dev/petrel/edgeagent/podrun/pull"
	"petrel.dev/petrel/internal/kube"
)

// pull has the image of a container's next attempt ready, as its policy wants, by a job beside the worker.
func (w *worker) pull(ctx context.Context, pod *corev1.Pod, a lifecycle.Action) {
	c := kube.ContainerNamed(pod, a.Container)
	if c == nil {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	old := w.mem.Images[c.Name]
	if old.Ref != c.Image {
		old = lifecycle.Image{}
	}
	old.Ref, old.InFlight = c.Image, true
	w.mem.Images[c.Name] = old
	if earlier := w.pulls[c.Name]; earlier != nil { // of another image
		earlier.cancel()
	}
	job := &pulling{cancel}
	w.pulls[c.Name] = job
	events, pulls := w.m.events, w.m.pulls
	r := pull.Request{Pod: pod, Container: c, Secrets: w.m.want.Load().set, Turn: w.pullTurn,
		Before: pull.Failure{Reason: old.Fail.Reason, Message: old.Fail.Message, Retry: old.Fail.Retry, Delay: old.Fail.Delay},
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
		fail := lifecycle.Failure{Fault: err != nil, Reason: f.Reason, Message: f.Message, Retry: f.Retry, Delay: f.Delay}
		return pulled{container: c.Name, job: job, image: lifecycle.Image{Ref: c.Image, Ready: fail.Reason == "" && ctx.Err() == nil, Fail: fail}}
	})
}

// pulling is an image on its way to this node.
type pulling struct{ cancel context.CancelFunc }

// pulled is the end of a pull.
type pulled struct {
	container string
	job       *pulling
	image     lifecycle.Image
}

func (r pulled) apply(_ context.Context, w *worker) {
	if w.pulls[r.container] == r.job { // otherwise the container has another image by now
		delete(w.pulls, r.container)
		w.mem.Images[r.container] = r.image
	}
}

// stopPulls gives up the images of a pod that is to go: the link is for others.
func (w *worker) stopPulls() {
	for _, p := range w.pulls {
		p.cancel()
	}
}
