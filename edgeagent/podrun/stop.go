package podrun

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/edgeagent/cruntime"
	"petrel.dev/petrel/edgeagent/podrun/lifecycle"
	"petrel.dev/petrel/internal/kube"
)

// stopRetry is how long after a container could not be stopped it is tried again.
const stopRetry = time.Second

// stop ends a container by a job beside the worker: preStop hook, the image's stop signal, SIGKILL when the grace is over. Of
// one that is being stopped already it only shortens the grace.
func (w *worker) stop(ctx context.Context, pod *corev1.Pod, a lifecycle.Action) {
	patience, hurry := context.WithTimeout(ctx, a.Grace)
	end, before := w.m.cfg.Now().Add(a.Grace), w.mem.Stops[a.ID]
	if before.IsZero() || end.Before(before) {
		w.mem.Stops[a.ID] = end
	}
	if a.Again != lifecycle.ByPolicy {
		w.mem.Again[a.ID] = a.Again
	}
	if earlier := w.hurry[a.ID]; earlier != nil {
		hurry()
		if end.Before(before) {
			time.AfterFunc(a.Grace, earlier)
		}
		return
	}
	w.hurry[a.ID] = hurry
	c := kube.ContainerNamed(pod, a.Container)
	if c == nil {
		c = &corev1.Container{Name: a.Container}
	}
	w.m.events.Record(pod, c, corev1.EventTypeNormal, "Killing", "%s", a.Why)
	h := w.handle
	h.job("podrun/stop", func() error { return h.end(ctx, patience, pod, c, a) }, func(err error) result {
		hurry()
		failed := err != nil && ctx.Err() == nil && !errors.Is(err, cruntime.ErrNotFound)
		if failed {
			h.m.cfg.Log.Warn("container not stopped yet", "pod", pod.Name, "container", a.Container, "error", err)
			pause(ctx, stopRetry)
		}
		return stopped{a.ID, failed}
	})
}

// stopped is the end of a job that stops a container.
type stopped struct {
	id     string
	failed bool
}

func (r stopped) apply(_ context.Context, w *worker) {
	delete(w.hurry, r.id)
	if r.failed {
		delete(w.mem.Stops, r.id) // the next step tries again
	}
}

// end returns when the container has ended. patience ends with its grace.
func (h *handle) end(ctx, patience context.Context, pod *corev1.Pod, c *corev1.Container, a lifecycle.Action) error {
	rt := h.m.cfg.Runtime
	if c.Lifecycle != nil && c.Lifecycle.PreStop != nil && a.Grace > 0 {
		if err := h.hook(patience, pod, c, a.ID, c.Lifecycle.PreStop); err != nil && ctx.Err() == nil {
			h.m.events.Record(pod, c, corev1.EventTypeWarning, "FailedPreStopHook", "PreStopHook failed: %v", err)
		}
		if end, _ := patience.Deadline(); patience.Err() != nil || time.Until(end) < lifecycle.LeastGrace {
			var cancel context.CancelFunc
			patience, cancel = context.WithTimeout(ctx, lifecycle.LeastGrace)
			defer cancel()
		}
	}
	if a.Grace > 0 {
		if err := rt.Signal(ctx, a.ID, 0); err != nil {
			return err
		}
		if gone, err := h.gone(ctx, patience, a.ID); gone || err != nil {
			return err
		}
	}
	if err := rt.Signal(ctx, a.ID, syscall.SIGKILL); err != nil {
		return err
	}
	last, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if gone, err := h.gone(ctx, last, a.ID); gone || err != nil {
		return err
	}
	return errors.New("SIGKILL has not ended it within 10 s; a process may hang in the kernel")
}

// gone waits until a container runs no more, or until patience ends. Exits arrive as events and make the worker
// observe; this looks for itself, a little less often each time, so that a lost event costs no more than a moment. A
// runtime that is away for a while costs nothing: the container has had its signal, and must not get another for that.
func (h *handle) gone(ctx, patience context.Context, id string) (bool, error) {
	for pause := 10 * time.Millisecond; ; pause = min(pause*3/2, time.Second) {
		list, err := h.m.cfg.Runtime.Containers(ctx, h.uid)
		running := err != nil
		for _, c := range list {
			running = running || c.ID == id && c.State == cruntime.Running
		}
		switch {
		case ctx.Err() != nil:
			return false, ctx.Err()
		case !running:
			return true, nil
		case patience.Err() != nil:
			return false, nil
		}
		select {
		case <-patience.Done(): // one more look
		case <-time.After(pause):
		}
	}
}

// removeLogs deletes a log with its rotated parts and its spool.
func removeLogs(path string) {
	matches, _ := filepath.Glob(path + "*")
	for _, m := range matches {
		_ = os.Remove(m)
	}
}
