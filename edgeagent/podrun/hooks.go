package podrun

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/edgeagent/cruntime"
	"petrel.dev/petrel/edgeagent/podrun/lifecycle"
	"petrel.dev/petrel/edgeagent/probe"
	"petrel.dev/petrel/internal/kube"
)

// postStart runs a container's postStart hook by a job beside the worker; when it fails the container is stopped. Until it is
// done the container does not count as started, and those after it wait.
func (w *worker) postStart(ctx context.Context, pod *corev1.Pod, c *corev1.Container, id string) {
	w.mem.Hooks[id] = true
	h := w.handle
	h.job("podrun/hook", func() error { return h.hook(ctx, pod, c, id, c.Lifecycle.PostStart) }, func(err error) result {
		return hooked{pod, c, id, err}
	})
}

// hooked is the end of a postStart hook.
type hooked struct {
	pod *corev1.Pod
	c   *corev1.Container
	id  string
	err error
}

func (r hooked) apply(ctx context.Context, w *worker) {
	delete(w.mem.Hooks, r.id)
	if r.err == nil || ctx.Err() != nil || errors.Is(r.err, cruntime.ErrNotFound) {
		return
	}
	w.m.events.Record(r.pod, r.c, corev1.EventTypeWarning, "FailedPostStartHook", "PostStartHook failed: %v", r.err)
	w.stop(ctx, r.pod, lifecycle.Action{Container: r.c.Name, ID: r.id, Grace: kube.Seconds(lifecycle.Grace(r.pod)), Why: "FailedPostStartHook"})
}

// hook runs one lifecycle handler.
func (h *handle) hook(ctx context.Context, pod *corev1.Pod, c *corev1.Container, id string, what *corev1.LifecycleHandler) error {
	switch {
	case what.Exec != nil:
		out := &limited{n: 4096}
		code, err := h.m.cfg.Runtime.Exec(ctx, id, cruntime.ExecSpec{Command: what.Exec.Command, Stdout: out, Stderr: out})
		if err == nil && code != 0 {
			err = fmt.Errorf("command %q exited with %d: %s", what.Exec.Command, code, out.String())
		}
		return err
	case what.HTTPGet != nil:
		return h.httpHook(ctx, pod, c, id, what.HTTPGet)
	case what.Sleep != nil:
		select {
		case <-time.After(kube.Seconds(what.Sleep.Seconds)):
		case <-ctx.Done():
		}
		return nil
	}
	return errors.New("this kind of lifecycle hook is not supported")
}

// httpHook asks a container by HTTP; any answer will do. One that turns out to speak plain HTTP where the
// pod has HTTPS is asked so, as kubelet does.
func (h *handle) httpHook(ctx context.Context, pod *corev1.Pod, c *corev1.Container, id string, get *corev1.HTTPGetAction) error {
	target := h.probeTarget(c, id)
	_, _, err := probe.Get(ctx, get, target, probe.Lifecycle)
	if !errors.Is(err, http.ErrSchemeMismatch) {
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
	h.m.events.Record(pod, c, corev1.EventTypeWarning, "LifecycleHTTPFallback",
		"request to HTTPS lifecycle hook %s got HTTP response, retry with HTTP succeeded", get.Path)
	return nil
}

// limited keeps the first n bytes written to it.
type limited struct {
	mu  sync.Mutex // guards buf: stdout and stderr may share one
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
