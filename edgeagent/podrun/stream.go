package podrun

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/edgeagent/cruntime"
	"petrel.dev/petrel/edgeagent/podlog"
	"petrel.dev/petrel/internal/contain"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/wire"
)

// Attacher is a Runtime whose containers can be spoken to; without it, attach is refused.
type Attacher interface {
	// Stdin opens the way into a container that was started with stdin.
	Stdin(ctx context.Context, c cruntime.Container) (io.WriteCloser, error)
	// Resize sets the size of a container's terminal.
	Resize(ctx context.Context, id string, s cruntime.Size) error
}

// Dialer connects to a port inside a network namespace; "" is the node's own.
type Dialer func(ctx context.Context, netns string, port int) (net.Conn, error)

// ServeStream serves one stream to a pod and closes it.
func (t *Manager) ServeStream(ctx context.Context, req wire.StreamRequest, s wire.Stream) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var end wire.StreamEnd
	err := contain.Do(t.cfg.Log, "podrun/stream", req.PodUID, func() (err error) {
		end, err = t.serve(ctx, req, s)
		return err
	})
	if err != nil {
		end = refusal(err)
	}
	if err := s.Close(end); err != nil && ctx.Err() == nil {
		t.cfg.Log.Debug("stream not closed", "kind", req.Kind, "error", err)
	}
}

// streamError is why a stream cannot be, with a reason of the API.
type streamError struct {
	reason metav1.StatusReason
	text   string
}

func (e *streamError) Error() string { return e.text }

func badRequest(format string, args ...any) error {
	return &streamError{metav1.StatusReasonBadRequest, fmt.Sprintf(format, args...)}
}

func refusal(err error) wire.StreamEnd {
	var e *streamError
	switch {
	case errors.As(err, &e):
		return wire.StreamEnd{Reason: string(e.reason), Message: e.text}
	case errors.Is(err, cruntime.ErrNotFound):
		return wire.StreamEnd{Reason: string(metav1.StatusReasonNotFound), Message: err.Error()}
	}
	return wire.StreamEnd{Reason: string(metav1.StatusReasonInternalError), Message: err.Error()}
}

func (t *Manager) serve(ctx context.Context, req wire.StreamRequest, s wire.Stream) (wire.StreamEnd, error) {
	w := t.worker(req.PodUID)
	if w == nil {
		return wire.StreamEnd{}, &streamError{metav1.StatusReasonNotFound, fmt.Sprintf("pod %s/%s is not on this node", req.Namespace, req.Pod)}
	}
	if req.Kind == wire.StreamPortForward {
		return wire.StreamEnd{}, w.forward(ctx, req, s)
	}
	pod := w.current()
	name := req.Container
	if name == "" && pod != nil && len(pod.Spec.Containers) > 0 {
		name = pod.Spec.Containers[0].Name
	}
	if req.Kind == wire.StreamLogs {
		return wire.StreamEnd{}, w.logs(ctx, name, req.Log, s)
	}
	c, err := w.runningContainer(ctx, name)
	if err != nil {
		return wire.StreamEnd{}, err
	}
	switch req.Kind {
	case wire.StreamExec:
		return w.exec(ctx, c, req, s)
	case wire.StreamAttach:
		return w.attach(ctx, c, req, s)
	}
	return wire.StreamEnd{}, badRequest("this agent knows no stream of kind %q", req.Kind)
}

func (w *worker) current() *corev1.Pod {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.pod
}

// newest returns the newest attempt of a container, or the one before it.
func (w *worker) newest(ctx context.Context, name string, previous bool) (*cruntime.Container, error) {
	list, err := w.m.cfg.Runtime.Containers(ctx, w.uid)
	if err != nil {
		return nil, err
	}
	var last, before *cruntime.Container
	for i := range list {
		if list[i].Name == name {
			before, last = last, &list[i]
		}
	}
	if previous {
		return before, nil
	}
	return last, nil
}

func (w *worker) runningContainer(ctx context.Context, name string) (*cruntime.Container, error) {
	pod := w.current()
	if pod != nil && kube.ContainerNamed(pod, name) == nil {
		return nil, badRequest("container %s is not valid for pod %s", name, pod.Name)
	}
	c, err := w.newest(ctx, name, false)
	if err != nil {
		return nil, err
	}
	if c == nil || c.State != cruntime.Running {
		return nil, &streamError{metav1.StatusReasonNotFound, fmt.Sprintf("container not found (%q)", name)}
	}
	return c, nil
}

// sender writes to one channel of a stream.
type sender struct {
	ctx context.Context
	s   wire.Stream
	ch  wire.Channel
}

// chunk is the largest piece sent at once: a stream's frames are small, so that streams take turns.
const chunk = 32 << 10

func (w sender) Write(p []byte) (int, error) {
	for n := 0; n < len(p); n += chunk {
		if err := w.s.Send(w.ctx, w.ch, p[n:min(n+chunk, len(p))]); err != nil {
			return n, err
		}
	}
	return len(p), nil
}

// receive reads what comes in until the stream ends: stdin, its end, and sizes of the terminal. It cancels when the
// peer goes, because then nobody waits for the process.
func receive(ctx context.Context, cancel context.CancelCauseFunc, s wire.Stream, stdin io.WriteCloser, resize chan<- cruntime.Size) {
	if err := contain.Do(nil, "podrun/receive", "stream", func() error { receiving(ctx, cancel, s, stdin, resize); return nil }); err != nil {
		cancel(err)
	}
}

func receiving(ctx context.Context, cancel context.CancelCauseFunc, s wire.Stream, stdin io.WriteCloser, resize chan<- cruntime.Size) {
	closeStdin := func() {
		if stdin != nil {
			stdin.Close()
			stdin = nil
		}
	}
	defer closeStdin()
	for {
		ch, data, err := s.Recv(ctx)
		if err != nil {
			cancel(fmt.Errorf("stream: %w", err))
			return
		}
		switch {
		case ch == wire.ChannelStdin && data == nil:
			closeStdin()
		case ch == wire.ChannelStdin && stdin != nil:
			if _, err := stdin.Write(data); err != nil { // the process reads no more
				closeStdin()
			}
		case ch == wire.ChannelResize && data != nil:
			var size cruntime.Size
			if json.Unmarshal(data, &size) == nil {
				select {
				case resize <- size:
				case <-ctx.Done():
				}
			}
		}
	}
}

func (w *worker) exec(ctx context.Context, c *cruntime.Container, req wire.StreamRequest, s wire.Stream) (wire.StreamEnd, error) {
	if len(req.Command) == 0 {
		return wire.StreamEnd{}, badRequest("you must specify at least one command for the container")
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	spec := cruntime.ExecSpec{Command: req.Command, TTY: req.TTY}
	resize := make(chan cruntime.Size, 4)
	spec.Resize = resize
	var feed io.WriteCloser
	if req.Stdin {
		in, out := io.Pipe()
		defer in.Close()
		spec.Stdin, feed = in, out
	}
	if req.Stdout || req.TTY {
		spec.Stdout = sender{ctx, s, wire.ChannelStdout}
	}
	if req.Stderr && !req.TTY {
		spec.Stderr = sender{ctx, s, wire.ChannelStderr}
	}
	go receive(ctx, cancel, s, feed, resize)
	code, err := w.m.cfg.Runtime.Exec(ctx, c.ID, spec)
	if err != nil {
		return wire.StreamEnd{}, err
	}
	end := wire.StreamEnd{ExitCode: code}
	if code != 0 {
		end.Message = fmt.Sprintf("command terminated with exit code %d", code)
	}
	return end, nil
}

func (w *worker) attach(ctx context.Context, c *cruntime.Container, req wire.StreamRequest, s wire.Stream) (wire.StreamEnd, error) {
	at, ok := w.m.cfg.Runtime.(Attacher)
	if !ok || w.m.cfg.Logs == nil {
		return wire.StreamEnd{}, badRequest("this node's container runtime cannot attach")
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	output, stop, ok := w.m.cfg.Logs.Subscribe(c.LogPath)
	if !ok {
		return wire.StreamEnd{}, &streamError{metav1.StatusReasonNotFound, fmt.Sprintf("container not found (%q)", c.Name)}
	}
	defer stop()
	var stdin io.WriteCloser
	if req.Stdin {
		if !c.Stdin {
			return wire.StreamEnd{}, badRequest("container %s was not started with stdin: set stdin in its definition", c.Name)
		}
		var err error
		if stdin, err = at.Stdin(ctx, *c); err != nil {
			return wire.StreamEnd{}, err
		}
	}
	resize := make(chan cruntime.Size, 4)
	go receive(ctx, cancel, s, stdin, resize)
	for {
		select {
		case <-ctx.Done():
			return wire.StreamEnd{}, context.Cause(ctx)
		case size := <-resize:
			if err := at.Resize(ctx, c.ID, size); err != nil {
				w.m.cfg.Log.Debug("terminal not resized", "container", c.Name, "error", err)
			}
		case out, ok := <-output:
			if !ok {
				return wire.StreamEnd{}, nil
			}
			ch := wire.ChannelStdout
			if out.Stderr {
				ch = wire.ChannelStderr
			}
			if out.Stderr && !req.Stderr || !out.Stderr && !req.Stdout {
				continue
			}
			if _, err := (sender{ctx, s, ch}).Write(out.Data); err != nil {
				return wire.StreamEnd{}, err
			}
		}
	}
}

// logs sends a container's log as PodLogOptions want it.
func (w *worker) logs(ctx context.Context, name string, raw []byte, s wire.Stream) error {
	var opt corev1.PodLogOptions
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &opt); err != nil {
			return badRequest("log options: %v", err)
		}
	}
	if opt.Container != "" {
		name = opt.Container
	}
	pod := w.current()
	if pod != nil && kube.ContainerNamed(pod, name) == nil {
		return badRequest("container %s is not valid for pod %s", name, pod.Name)
	}
	c, err := w.newest(ctx, name, opt.Previous)
	switch {
	case err != nil:
		return err
	case c == nil && opt.Previous:
		return badRequest("previous terminated container %q in pod %q not found", name, w.podName())
	case c == nil || c.State == cruntime.Created || w.m.cfg.Logs == nil:
		return badRequest("container %q in pod %q is waiting to start: %s", name, w.podName(), w.waitingReason(name))
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go receive(ctx, cancel, s, nil, nil) // sees the reader go
	o := podlog.Options{Follow: opt.Follow && c.State == cruntime.Running, Tail: -1, Timestamps: opt.Timestamps}
	if opt.TailLines != nil {
		o.Tail = *opt.TailLines
	}
	if opt.LimitBytes != nil {
		o.Limit = *opt.LimitBytes
	}
	switch {
	case opt.SinceTime != nil:
		o.Since = opt.SinceTime.Time
	case opt.SinceSeconds != nil:
		o.Since = w.m.cfg.Now().Add(-kube.Seconds(*opt.SinceSeconds))
	}
	if opt.Stream != nil {
		switch *opt.Stream {
		case corev1.LogStreamStdout:
			o.Stream = "stdout"
		case corev1.LogStreamStderr:
			o.Stream = "stderr"
		}
	}
	return w.m.cfg.Logs.Read(ctx, c.LogPath, o, sender{ctx, s, wire.ChannelStdout})
}

func (w *worker) podName() string {
	if p := w.current(); p != nil {
		return p.Name
	}
	return w.uid
}

func (w *worker) waitingReason(name string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if st := lastStatus(&w.mem.last, name); st != nil && st.State.Waiting != nil {
		return st.State.Waiting.Reason
	}
	return "ContainerCreating"
}

// forward joins a stream with a connection to a port of the pod.
func (w *worker) forward(ctx context.Context, req wire.StreamRequest, s wire.Stream) error {
	w.mu.Lock()
	sb := w.mem.sandbox
	w.mu.Unlock()
	if sb == nil {
		return &streamError{metav1.StatusReasonNotFound, fmt.Sprintf("pod %s/%s is not running", req.Namespace, req.Pod)}
	}
	dial, stop := context.WithTimeout(ctx, 10*time.Second)
	conn, err := w.m.cfg.Dial(dial, sb.netns, int(req.Port))
	stop()
	if err != nil {
		return badRequest("port %s of pod %s: %v", strconv.Itoa(int(req.Port)), req.Pod, err)
	}
	defer conn.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	go receive(ctx, cancel, s, halfCloser{conn}, nil)
	buf := make([]byte, chunk)
	for {
		n, err := conn.Read(buf)
		if n > 0 {
			if err := s.Send(ctx, wire.ChannelStdout, buf[:n]); err != nil {
				return err
			}
		}
		if err != nil {
			return nil // the pod's side is done
		}
	}
}

// halfCloser closes only the sending side, where the connection can.
type halfCloser struct{ net.Conn }

func (c halfCloser) Close() error {
	if t, ok := c.Conn.(*net.TCPConn); ok {
		return t.CloseWrite()
	}
	return c.Conn.Close()
}
