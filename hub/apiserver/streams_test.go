package apiserver_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/remotecommand"
	clientexec "k8s.io/client-go/util/exec"

	"petrel.dev/petrel/hub/apiserver"
	"petrel.dev/petrel/internal/wire"
)

// frame is one thing said on a stream: data, or with nil the end of a channel.
type frame struct {
	ch   wire.Channel
	data []byte
}

// pipe joins two ends of a stream in memory.
type pipe struct {
	in, out chan frame
	mine    *ending // what this end said when it closed
	theirs  *ending
}

type ending struct {
	once sync.Once
	done chan struct{}
	end  wire.StreamEnd
}

func newPipe() (hub, node *pipe) {
	down, up := make(chan frame), make(chan frame)
	a, b := &ending{done: make(chan struct{})}, &ending{done: make(chan struct{})}
	return &pipe{up, down, a, b}, &pipe{down, up, b, a}
}

func (p *pipe) Send(ctx context.Context, ch wire.Channel, data []byte) error {
	return p.say(ctx, frame{ch, append([]byte{}, data...)})
}

func (p *pipe) CloseSend(ctx context.Context, ch wire.Channel) error {
	return p.say(ctx, frame{ch, nil})
}

func (p *pipe) say(ctx context.Context, f frame) error {
	select {
	case p.out <- f:
		return nil
	case <-p.theirs.done:
		return &p.theirs.end
	case <-p.mine.done:
		return net.ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *pipe) Recv(ctx context.Context) (wire.Channel, []byte, error) {
	select {
	case f := <-p.in:
		return f.ch, f.data, nil
	case <-p.theirs.done:
		return 0, nil, &p.theirs.end
	case <-p.mine.done:
		return 0, nil, net.ErrClosed
	case <-ctx.Done():
		return 0, nil, ctx.Err()
	}
}

func (p *pipe) Close(end wire.StreamEnd) error {
	p.mine.once.Do(func() {
		p.mine.end = end
		close(p.mine.done)
	})
	return nil
}

// node serves streams like an agent whose containers run a very small shell.
type node struct {
	mu   sync.Mutex
	seen []wire.StreamRequest
}

func (n *node) OpenStream(ctx context.Context, name string, req wire.StreamRequest) (wire.Stream, error) {
	n.mu.Lock()
	n.seen = append(n.seen, req)
	n.mu.Unlock()
	if err := n.Absent(name); err != nil {
		return nil, err
	}
	hub, here := newPipe()
	go n.serve(context.Background(), here, req)
	return hub, nil
}

func (*node) Absent(name string) error {
	if name == "dark" {
		return apierrors.NewServiceUnavailable("node dark has not been heard of since 2026-11-21T09:00:00Z")
	}
	return nil
}

func (n *node) last() wire.StreamRequest {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.seen[len(n.seen)-1]
}

func (n *node) serve(ctx context.Context, st *pipe, req wire.StreamRequest) {
	out := func(format string, a ...any) { _ = st.Send(ctx, wire.ChannelStdout, fmt.Appendf(nil, format, a...)) }
	switch req.Kind {
	case wire.StreamLogs:
		n.log(ctx, st, req)
		return
	case wire.StreamPortForward:
		if req.Port != 80 {
			_ = st.Close(wire.StreamEnd{Reason: "NotFound", Message: "connection refused"})
			return
		}
		var all []byte
		for {
			_, b, err := st.Recv(ctx)
			if err != nil {
				return
			}
			if all = append(all, b...); bytes.Contains(all, []byte("\r\n\r\n")) {
				out("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello")
				_ = st.CloseSend(ctx, wire.ChannelStdout)
				_ = st.Close(wire.StreamEnd{})
				return
			}
		}
	}
	switch cmd := strings.Join(req.Command, " "); {
	case cmd == "cat":
		for {
			ch, b, err := st.Recv(ctx)
			switch {
			case err != nil:
				return
			case ch == wire.ChannelResize:
				out("resized %s\n", b)
			case b == nil:
				_ = st.Close(wire.StreamEnd{})
				return
			default:
				out("%s", b)
			}
		}
	case strings.HasPrefix(cmd, "exit "):
		var code int
		if _, err := fmt.Sscanf(cmd, "exit %d", &code); err != nil {
			panic(err)
		}
		out("bye\n")
		_ = st.Send(ctx, wire.ChannelStderr, []byte("complaint\n"))
		_ = st.Close(wire.StreamEnd{ExitCode: code, Message: fmt.Sprintf("exit status %d", code)})
	case cmd == "flood":
		for i := range 200 {
			out("%s", bytes.Repeat([]byte{byte('a' + i%26)}, 16<<10))
		}
		_ = st.Close(wire.StreamEnd{})
	case req.Kind == wire.StreamAttach:
		out("attached\n")
		_ = st.Close(wire.StreamEnd{})
	default:
		_ = st.Close(wire.StreamEnd{Reason: "NotFound", Message: fmt.Sprintf("exec: %q: executable file not found in $PATH", req.Command[0])})
	}
}

func (n *node) log(ctx context.Context, st *pipe, req wire.StreamRequest) {
	var o corev1.PodLogOptions
	if err := json.Unmarshal(req.Log, &o); err != nil {
		panic(err)
	}
	if o.Previous {
		_ = st.Close(wire.StreamEnd{Reason: "BadRequest", Message: fmt.Sprintf("previous terminated container %q in pod %q not found", req.Container, req.Pod)})
		return
	}
	lines := []string{"one\n", "two\n", "three\n"}
	if o.TailLines != nil {
		lines = lines[max(0, len(lines)-int(*o.TailLines)):]
	}
	for _, l := range lines {
		if st.Send(ctx, wire.ChannelStdout, []byte(l)) != nil {
			return
		}
	}
	if o.Follow {
		_, _, _ = st.Recv(ctx) // until the hub hangs up
		return
	}
	_ = st.Close(wire.StreamEnd{})
}

func withNode(n *node) option { return func(c *apiserver.Config) { c.Streams = n } }

// pod makes a pod that is bound to a node.
func (h *hub) pod(name, on string, containers ...string) {
	h.t.Helper()
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PodSpec{NodeName: on}}
	for _, c := range containers {
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: c, Image: "img"})
	}
	c := h.client().CoreV1().Pods("default")
	p, err := c.Create(h.t.Context(), p, metav1.CreateOptions{})
	if err != nil {
		h.t.Fatal(err)
	}
	p.Status.Phase = corev1.PodRunning
	if _, err := c.UpdateStatus(h.t.Context(), p, metav1.UpdateOptions{}); err != nil {
		h.t.Fatal(err)
	}
}

func TestKubectlStreams(t *testing.T) {
	t.Parallel()
	n := &node{}
	h := newHub(t, withNode(n))
	h.pod("web", "pi-1", "app")
	h.pod("two", "pi-1", "app", "sidecar")
	h.pod("lost", "dark", "app")
	h.pod("waiting", "", "app")
	for _, tt := range []struct {
		args  string
		stdin string
		out   string // all of it, or after ~ a regular expression
		code  int
	}{
		{args: "logs web", out: "one\ntwo\nthree\n"},
		{args: "logs web --tail=1", out: "three\n"},
		{args: "logs web --limit-bytes=6", out: "one\ntw"},
		{args: "logs web --previous", out: `~previous terminated container "app" in pod "web" not found`, code: 1},
		{args: "logs two -c sidecar", out: "one\ntwo\nthree\n"},
		{args: "logs two -c nope", out: "~container nope is not valid for pod two", code: 1},
		{args: "logs lost", out: "~node dark has not been heard of since", code: 1},
		{args: "logs waiting", out: ""},
		{args: "exec web -- exit 0", out: "~bye"},
		{args: "exec web -- exit 42", out: "~command terminated with exit code 42", code: 42},
		{args: "exec -i web -- cat", stdin: "hello there", out: "hello there"},
		{args: "exec web -- nope", out: `~executable file not found in \$PATH`, code: 1},
		{args: "exec lost -- cat", out: "~node dark has not been heard of since", code: 1},
		{args: "exec waiting -- cat", out: "~pod waiting does not have a host assigned", code: 1},
		{args: "attach web", out: "~attached"},
	} {
		t.Run(strings.ReplaceAll(tt.args, " ", "_"), func(t *testing.T) {
			out, code := h.kubectl(tt.stdin, strings.Fields(tt.args)...)
			if want, ok := strings.CutPrefix(tt.out, "~"); ok && !regexp.MustCompile(want).MatchString(out) || !ok && out != tt.out || code != tt.code {
				t.Errorf("exit code %d, want %d; printed %q, want %q", code, tt.code, out, tt.out)
			}
		})
	}
}

// Both ways into a container: WebSocket as clients do now, SPDY as they did.
func TestExecProtocols(t *testing.T) {
	t.Parallel()
	h := newHub(t, withNode(&node{}))
	h.pod("web", "pi-1", "app")
	for _, protocol := range []string{"websocket", "spdy"} {
		run := func(t *testing.T, command []string, tty bool, stdin io.Reader, resize remotecommand.TerminalSizeQueue) (stdout, stderr string, err error) {
			t.Helper()
			req := h.client().CoreV1().RESTClient().Post().Namespace("default").Resource("pods").Name("web").SubResource("exec").
				VersionedParams(&corev1.PodExecOptions{Container: "app", Command: command, Stdin: stdin != nil, Stdout: true, Stderr: !tty, TTY: tty}, scheme.ParameterCodec)
			var ex remotecommand.Executor
			if protocol == "spdy" {
				ex, err = remotecommand.NewSPDYExecutor(h.config, "POST", req.URL())
			} else {
				ex, err = remotecommand.NewWebSocketExecutor(h.config, "GET", req.URL().String())
			}
			if err != nil {
				t.Fatal(err)
			}
			var out, errs bytes.Buffer
			o := remotecommand.StreamOptions{Stdin: stdin, Stdout: &out, Tty: tty, TerminalSizeQueue: resize}
			if q, ok := stdin.(*sizes); ok {
				o.Stdout = io.MultiWriter(&out, q)
			}
			if !tty {
				o.Stderr = &errs
			}
			err = ex.StreamWithContext(t.Context(), o)
			return out.String(), errs.String(), err
		}
		t.Run(protocol, func(t *testing.T) {
			out, errs, err := run(t, []string{"exit", "7"}, false, nil, nil)
			var code clientexec.CodeExitError
			if !errors.As(err, &code) || code.Code != 7 || out != "bye\n" || errs != "complaint\n" {
				t.Errorf("exit 7: %q %q %v", out, errs, err)
			}
			if out, _, err = run(t, []string{"cat"}, false, strings.NewReader("in\nand out"), nil); err != nil || out != "in\nand out" {
				t.Errorf("cat: %q %v", out, err)
			}
			if out, _, err = run(t, []string{"flood"}, false, nil, nil); err != nil || len(out) != 200*16<<10 {
				t.Errorf("flood: %d bytes, %v", len(out), err)
			}
			if _, _, err = run(t, []string{"nope"}, false, nil, nil); err == nil || !strings.Contains(err.Error(), "executable file not found") {
				t.Errorf("nope: %v", err)
			}
			q := &sizes{next: []remotecommand.TerminalSize{{Width: 80, Height: 24}}, noticed: make(chan struct{})}
			if out, _, err = run(t, []string{"cat"}, true, q, q); err != nil || !strings.Contains(out, `resized {"Width":80,"Height":24}`) {
				t.Errorf("resize: %q %v", out, err)
			}
		})
	}
}

// sizes is a terminal that has one size, and whose user says nothing until the container has noticed it: stdin and sizes
// travel on channels of their own, and no order holds between them.
type sizes struct {
	next    []remotecommand.TerminalSize
	noticed chan struct{}
}

func (s *sizes) Next() *remotecommand.TerminalSize {
	if len(s.next) == 0 {
		return nil
	}
	n := s.next[0]
	s.next = s.next[1:]
	return &n
}

func (s *sizes) Write(b []byte) (int, error) {
	if bytes.Contains(b, []byte("resized")) {
		close(s.noticed)
	}
	return len(b), nil
}

func (s *sizes) Read([]byte) (int, error) {
	<-s.noticed
	return 0, io.EOF
}

func TestPortForward(t *testing.T) {
	t.Parallel()
	h := newHub(t, withNode(&node{}))
	h.pod("web", "pi-1", "app")
	for _, websockets := range []string{"true", "false"} {
		t.Run("websockets="+websockets, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), kubectlPath, "port-forward", "--address=127.0.0.1", "pod/web", ":80", ":81")
			cmd.Env = append(os.Environ(), "KUBECONFIG="+h.kubeconfig, "HOME="+filepath.Dir(h.kubeconfig), "KUBECTL_PORT_FORWARD_WEBSOCKETS="+websockets)
			stdout, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() {
				_ = cmd.Process.Kill()
				_ = cmd.Wait()
			}()
			ports := map[string]string{}
			buf := make([]byte, 4096)
			for len(ports) < 2 {
				n, err := stdout.Read(buf)
				if err != nil {
					t.Fatalf("kubectl port-forward: %v %s", err, stderr.String())
				}
				for _, m := range regexp.MustCompile(`127.0.0.1:(\d+) -> (\d+)`).FindAllStringSubmatch(string(buf[:n]), -1) {
					ports[m[2]] = m[1]
				}
			}
			c := &http.Client{Timeout: time.Minute}
			for range 3 {
				a := send(t, c, "GET", "http://127.0.0.1:"+ports["80"], "")
				if a.code != 200 || a.body != "hello" {
					t.Errorf("%+v", a)
				}
			}
			if _, err := c.Get("http://127.0.0.1:" + ports["81"]); err == nil {
				t.Error("a port that refuses was answered")
			}
		})
	}
}

func TestLogOptions(t *testing.T) {
	t.Parallel()
	n := &node{}
	h := newHub(t, withNode(n))
	h.pod("web", "pi-1", "app")
	h.pod("two", "pi-1", "app", "sidecar")
	for _, tt := range []struct {
		query string
		code  int
		says  string
	}{
		{"web/log?tailLines=-1", 422, `PodLogOptions \"web\" is invalid: tailLines: Invalid value: -1: must be greater than or equal to 0`},
		{"web/log?limitBytes=0", 422, `limitBytes: Invalid value: 0: must be greater than 0`},
		{"web/log?tailLines=x", 400, `invalid syntax`},
		{"web/log?sinceSeconds=5&sinceTime=2026-01-01T00:00:00Z", 422, "at most one of"},
		{"two/log", 400, `a container name must be specified for pod two, choose one of: [app sidecar]`},
		{"none/log", 404, `pods \"none\" not found`},
		{"web/exec", 400, "you must specify at least 1 command for the container"},
		{"web/exec?command=ls&stdout=true", 400, "Upgrade request required"},
	} {
		t.Run(tt.query, func(t *testing.T) {
			a := h.do("GET", "/api/v1/namespaces/default/pods/"+tt.query, "")
			if a.code != tt.code || !strings.Contains(a.body, tt.says) {
				t.Errorf("%d %s", a.code, a.body)
			}
		})
	}
	a := h.do("GET", "/api/v1/namespaces/default/pods/web/log?tailLines=2&timestamps=true&sinceSeconds=60&container=app", "")
	var o corev1.PodLogOptions
	if err := json.Unmarshal(n.last().Log, &o); err != nil {
		t.Fatal(err)
	}
	if a.code != 200 || *o.TailLines != 2 || !o.Timestamps || *o.SinceSeconds != 60 || o.Container != "app" || n.last().Container != "app" || n.last().PodUID == "" {
		t.Errorf("%d, the node was asked %+v", a.code, n.last())
	}
}

// A hub that stops ends what is open, instead of waiting for it.
func TestStopEndsWatchesAndStreams(t *testing.T) {
	t.Parallel()
	h := newHub(t, withNode(&node{}))
	h.pod("web", "pi-1", "app")
	w, err := h.client().CoreV1().Pods("default").Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	<-w.ResultChan()
	follow, err := h.client().CoreV1().Pods("default").GetLogs("web", &corev1.PodLogOptions{Follow: true}).Stream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer follow.Close()
	h.stop()
	for range w.ResultChan() {
	}
	if _, err := io.ReadAll(follow); err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Logf("the log ended with %v", err)
	}
}
