package podrun

import (
	"context"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/edgeagent/cruntime"
	"petrel.dev/petrel/edgeagent/podrun/pull"
	"petrel.dev/petrel/internal/kube"
)

// observe asks the runtime for the pod's containers, reads the termination messages of those that have ended, and takes what
// jobs have left in the inbox.
func (w *worker) observe(ctx context.Context, d target) ([]cruntime.Container, error) {
	list, err := w.containers(ctx)
	if err != nil {
		return nil, err
	}
	w.retryImages(ctx, d.pod)
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
	var failed []imageState
	for name, img := range w.mem.images {
		c := kube.ContainerNamed(pod, name)
		if img.fail.reason != "" && !img.fail.fault && !img.inFlight && c != nil && c.Image == img.ref && pull.Policy(c) != corev1.PullAlways {
			failed = append(failed, img)
		}
	}
	for _, img := range failed {
		if _, err := w.m.cfg.Runtime.Image(ctx, img.ref); err != nil {
			continue
		}
		for name, have := range w.mem.images {
			if have.ref == img.ref && !have.inFlight {
				delete(w.mem.images, name)
			}
		}
	}
}
