package podrun

import (
	"context"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/edgeagent/cruntime"
	"petrel.dev/petrel/edgeagent/podrun/lifecycle"
	"petrel.dev/petrel/edgeagent/podrun/pull"
)

// observe asks the runtime for the pod's containers, reads the termination messages of those that have ended, and takes what
// jobs have left in the inbox.
func (w *worker) observe(ctx context.Context, d lifecycle.Target) ([]cruntime.Container, error) {
	list, err := w.containers(ctx)
	if err != nil {
		return nil, err
	}
	w.retryImages(ctx, d.Pod)
	w.mem.NodeIPs = w.m.cfg.NodeIPs()
	if sb := w.mem.Sandbox; sb != nil && d.Pod.Spec.HostNetwork {
		w.mem.Sandbox = &lifecycle.Sandbox{ID: sb.ID, IPs: w.mem.NodeIPs}
	}
	alive := map[string]bool{}
	for i := range list {
		c := &list[i]
		alive[c.ID] = true
		if c.State == cruntime.Exited {
			delete(w.mem.Stops, c.ID)
			if _, ok := w.mem.Messages[c.ID]; !ok {
				w.mem.Messages[c.ID] = w.terminationMessage(d.Pod, c)
			}
		}
	}
	for id := range w.mem.Messages {
		if !alive[id] {
			delete(w.mem.Messages, id)
		}
	}
	for id := range w.mem.Again {
		if !alive[id] {
			delete(w.mem.Again, id)
		}
	}
	if d.Deleting() && w.mem.StopFrom.IsZero() {
		w.mem.StopFrom = w.m.cfg.Now()
	}
	w.take(ctx)
	return list, nil
}

// take applies what is in the inbox.
func (w *worker) take(ctx context.Context) {
	for r, ok := w.inbox.next(); ok; r, ok = w.inbox.next() {
		r.apply(ctx, w)
	}
}

// containers asks the runtime for the pod's containers.
func (w *worker) containers(ctx context.Context) ([]cruntime.Container, error) {
	return atMost(w, ctx, lookLimit, "looking at the containers", func(ctx context.Context) ([]cruntime.Container, error) {
		return w.m.cfg.Runtime.Containers(ctx, w.uid)
	})
}

// retryImages ends the back-off of images that have come in another way, by an import for example.
func (w *worker) retryImages(ctx context.Context, pod *corev1.Pod) {
	var failed []wantedImage
	for key, img := range w.mem.Images {
		want, ok := imageOf(pod, key)
		if ok && img.Fail.Reason != "" && !img.Fail.Fault && !img.InFlight && want.ref == img.Ref && pull.Policy(want.ref, want.policy) != corev1.PullAlways {
			failed = append(failed, want)
		}
	}
	for _, img := range failed {
		if !w.m.pulls.Here(ctx, img.ref, img.mount) {
			continue
		}
		for key, have := range w.mem.Images {
			if want, ok := imageOf(pod, key); ok && want.mount == img.mount && have.Ref == img.ref && !have.InFlight {
				delete(w.mem.Images, key)
			}
		}
	}
}
