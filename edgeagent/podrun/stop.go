package podrun

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"petrel.dev/petrel/edgeagent/cruntime"
	"petrel.dev/petrel/edgeagent/probe"
	"petrel.dev/petrel/internal/kube"
)

// stop ends a container beside the worker: preStop hook, the image's stop signal, SIGKILL when the grace is over. Of one
// that is being stopped already it only shortens the grace.
func (w *worker) stop(ctx context.Context, pod *corev1.Pod, a action) {
	t := w.m
	patience, hurry := context.WithTimeout(ctx, a.grace)
	w.mu.Lock()
	end, before := t.cfg.Now().Add(a.grace), w.mem.stops[a.id]
	if before.IsZero() || end.Before(before) {
		w.mem.stops[a.id] = end
	}
	if earlier := w.hurry[a.id]; earlier != nil {
		w.mu.Unlock()
		hurry()
		if end.Before(before) {
			time.AfterFunc(a.grace, earlier)
		}
		return
	}
	w.hurry[a.id] = hurry
	w.mu.Unlock()
	c := kube.ContainerNamed(pod, a.container)
	if c == nil {
		c = &corev1.Container{Name: a.container}
	}
	t.events.pod(pod, c, corev1.EventTypeNormal, "Killing", "%s", a.why)
	w.job("podrun/stop", func() error { return w.end(ctx, patience, pod, c, a) }, func(err error) {
		hurry()
		w.mu.Lock()
		delete(w.hurry, a.id)
		w.mu.Unlock()
		if err != nil && ctx.Err() == nil && !errors.Is(err, cruntime.ErrNotFound) {
			t.cfg.Log.Warn("container not stopped yet", "pod", pod.Name, "container", a.container, "error", err)
			w.mu.Lock()
			delete(w.mem.stops, a.id) // the next step tries again
			w.mu.Unlock()
			w.nudgeLater(ctx, time.Second)
			return
		}
		w.poke()
	})
}

// end returns when the container has ended. patience ends with its grace.
func (w *worker) end(ctx, patience context.Context, pod *corev1.Pod, c *corev1.Container, a action) error {
	rt := w.m.cfg.Runtime
	if c.Lifecycle != nil && c.Lifecycle.PreStop != nil && a.grace > 0 {
		if err := w.hook(patience, pod, c, a.id, c.Lifecycle.PreStop); err != nil && ctx.Err() == nil {
			w.m.events.pod(pod, c, corev1.EventTypeWarning, "FailedPreStopHook", "PreStopHook failed: %v", err)
		}
		if end, _ := patience.Deadline(); patience.Err() != nil || time.Until(end) < leastGrace {
			var cancel context.CancelFunc
			patience, cancel = context.WithTimeout(ctx, leastGrace)
			defer cancel()
		}
	}
	if a.grace > 0 {
		if err := rt.Signal(ctx, a.id, 0); err != nil {
			return err
		}
		if gone, err := w.gone(ctx, patience, a.id); gone || err != nil {
			return err
		}
	}
	if err := rt.Signal(ctx, a.id, syscall.SIGKILL); err != nil {
		return err
	}
	last, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if gone, err := w.gone(ctx, last, a.id); gone || err != nil {
		return err
	}
	return errors.New("SIGKILL has not ended it within 10 s; a process may hang in the kernel")
}

// gone waits until a container runs no more, or until patience ends. Exits arrive as events and nudge the worker, which
// observes; this looks for itself, a little less often each time, so that a lost event costs no more than a moment. A
// runtime that is away for a while costs nothing: the container has had its signal, and must not get another for that.
func (w *worker) gone(ctx, patience context.Context, id string) (bool, error) {
	for pause := 10 * time.Millisecond; ; pause = min(pause*3/2, time.Second) {
		list, err := w.m.cfg.Runtime.Containers(ctx, w.uid)
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

func (w *worker) nudgeLater(ctx context.Context, d time.Duration) {
	time.AfterFunc(d, func() {
		if ctx.Err() == nil {
			w.poke()
		}
	})
}

// postStart runs a container's postStart hook beside the worker; when it fails the container is stopped. Until it is done
// the container does not count as started, and those after it wait.
func (w *worker) postStart(ctx context.Context, pod *corev1.Pod, c *corev1.Container, id string) {
	w.mu.Lock()
	w.mem.hooks[id] = true
	w.mu.Unlock()
	w.job("podrun/hook", func() error { return w.hook(ctx, pod, c, id, c.Lifecycle.PostStart) }, func(err error) {
		w.mu.Lock()
		delete(w.mem.hooks, id)
		w.mu.Unlock()
		defer w.poke()
		if err == nil || ctx.Err() != nil || errors.Is(err, cruntime.ErrNotFound) {
			return
		}
		w.m.events.pod(pod, c, corev1.EventTypeWarning, "FailedPostStartHook", "PostStartHook failed: %v", err)
		w.stop(ctx, pod, action{container: c.Name, id: id, grace: kube.Seconds(graceOf(pod)), why: "FailedPostStartHook"})
	})
}

// hook runs one lifecycle handler.
func (w *worker) hook(ctx context.Context, pod *corev1.Pod, c *corev1.Container, id string, h *corev1.LifecycleHandler) error {
	switch {
	case h.Exec != nil:
		out := &limited{n: 4096}
		code, err := w.m.cfg.Runtime.Exec(ctx, id, cruntime.ExecSpec{Command: h.Exec.Command, Stdout: out, Stderr: out})
		if err == nil && code != 0 {
			err = fmt.Errorf("command %q exited with %d: %s", h.Exec.Command, code, out.String())
		}
		return err
	case h.HTTPGet != nil:
		return w.httpHook(ctx, pod, c, id, h.HTTPGet)
	case h.Sleep != nil:
		select {
		case <-time.After(kube.Seconds(h.Sleep.Seconds)):
		case <-ctx.Done():
		}
		return nil
	}
	return errors.New("this kind of lifecycle hook is not supported")
}

// httpHook asks a container by HTTP; whatever it answers will do. One that turns out to speak plain HTTP where HTTPS was
// said is asked so, as kubelet does.
func (w *worker) httpHook(ctx context.Context, pod *corev1.Pod, c *corev1.Container, id string, get *corev1.HTTPGetAction) error {
	target := w.probeTarget(c, id)
	_, _, err := probe.Get(ctx, get, target, probe.Lifecycle)
	if err == nil || !strings.Contains(err.Error(), "server gave HTTP response to HTTPS client") {
		return err
	}
	plain := get.DeepCopy()
	plain.Scheme = corev1.URISchemeHTTP
	plain.HTTPHeaders = slices.DeleteFunc(plain.HTTPHeaders, func(h corev1.HTTPHeader) bool {
		return strings.EqualFold(h.Name, "Authorization") // meant for a connection that nobody can read
	})
	if _, _, err := probe.Get(ctx, plain, target, probe.Lifecycle); err != nil {
		return err
	}
	w.m.events.pod(pod, c, corev1.EventTypeWarning, "LifecycleHTTPFallback",
		"request to HTTPS lifecycle hook %s got HTTP response, retry with HTTP succeeded", get.Path)
	return nil
}

// portOf resolves a port by number or by the name that the container gives it.
func portOf(p intstr.IntOrString, c *corev1.Container) (int, error) {
	if p.Type == intstr.Int {
		return p.IntValue(), nil
	}
	for _, cp := range c.Ports {
		if cp.Name == p.StrVal {
			return int(cp.ContainerPort), nil
		}
	}
	if n, err := strconv.Atoi(p.StrVal); err == nil {
		return n, nil
	}
	return 0, fmt.Errorf("container %s has no port named %q", c.Name, p.StrVal)
}

// limited keeps the first n bytes written to it.
type limited struct {
	mu  sync.Mutex // stdout and stderr may share one
	buf bytes.Buffer
	n   int
}

func (l *limited) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func (l *limited) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if room := l.n - l.buf.Len(); room > 0 {
		l.buf.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

// removeLogs deletes a log with its rotated parts and its spool.
func removeLogs(path string) {
	matches, _ := filepath.Glob(path + "*")
	for _, m := range matches {
		_ = os.Remove(m)
	}
}
