package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/signal"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/remotecommand"
	utilexec "k8s.io/client-go/util/exec"
	"k8s.io/streaming/pkg/httpstream"

	"golang.org/x/term"

	"petrel.dev/petrel/internal/cli/screen"
)

// ExitError carries an exit code other than 1; petrel exits with it.
type ExitError struct {
	Code int
	Err  error // nil when the output says it all
}

// Error implements error.
func (e *ExitError) Error() string {
	if e.Err != nil {
		return e.Err.Error()
	}
	return fmt.Sprintf("command terminated with exit code %d", e.Code)
}

// Unwrap returns the reason, if there is one.
func (e *ExitError) Unwrap() error { return e.Err }

// Exec runs a command in a container.
type Exec struct {
	Cluster
	Pod       string   `arg:"" help:"POD or TYPE/NAME (a Deployment means one of its pods)."`
	Command   []string `arg:"" optional:"" passthrough:"" help:"The command and its arguments, after --."`
	Container string   `short:"c" help:"Container of the pod. Default: the only or first one." placeholder:"NAME"`
	Stdin     bool     `short:"i" help:"Hand standard input to the command."`
	TTY       bool     `short:"t" help:"Give the command a terminal."`
	Quiet     bool     `short:"q" help:"Only what the command prints."`
}

// Help explains the exit code.
func (*Exec) Help() string {
	return "Ends with the exit code of the command in the container, or with 1 when the hub or the node could not run it."
}

// Run connects the command to this process's standard streams; its exit code becomes ours.
func (e *Exec) Run(ctx context.Context, s *Streams) error {
	cmd := e.Command
	if len(cmd) > 0 && cmd[0] == "--" {
		cmd = cmd[1:]
	}
	if len(cmd) == 0 {
		return errors.New("no command: write it after --, for example `petrel exec web-1 -- ls /`")
	}
	return session{cluster: e.Cluster, pod: e.Pod, container: e.Container, stdin: e.Stdin, tty: e.TTY, quiet: e.Quiet, command: cmd}.run(ctx, s, "exec")
}

// Attach connects to a container's main process.
type Attach struct {
	Cluster
	Pod       string `arg:"" help:"POD or TYPE/NAME (a Deployment means one of its pods)."`
	Container string `short:"c" help:"Container of the pod. Default: the only or first one." placeholder:"NAME"`
	Stdin     bool   `short:"i" help:"Hand standard input to the process."`
	TTY       bool   `short:"t" help:"The process has a terminal."`
	Quiet     bool   `short:"q" help:"Only what the process prints."`
}

// Run connects until either side ends.
func (a *Attach) Run(ctx context.Context, s *Streams) error {
	return session{cluster: a.Cluster, pod: a.Pod, container: a.Container, stdin: a.Stdin, tty: a.TTY, quiet: a.Quiet}.run(ctx, s, "attach")
}

type session struct {
	cluster        Cluster
	pod, container string
	stdin, tty     bool
	quiet          bool
	command        []string
}

func (x session) run(ctx context.Context, s *Streams, verb string) error {
	c, err := x.cluster.connect(ctx, s)
	if err != nil {
		return err
	}
	pod, err := c.podOf(ctx, x.pod)
	if err != nil {
		return err
	}
	if pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
		return fmt.Errorf("cannot %s into a container of a completed pod; current phase is %s", verb, pod.Status.Phase)
	}
	notes := s
	if x.quiet {
		notes = &Streams{Err: io.Discard}
	}
	container, err := chooseContainer(notes, pod, x.container)
	if err != nil {
		return err
	}
	tty := x.tty
	stdin, isFile := s.In.(*os.File)
	if tty && (!x.stdin || !isFile || !term.IsTerminal(int(stdin.Fd()))) {
		fmt.Fprintln(notes.Err, "Unable to use a TTY - input is not a terminal or the right kind of file")
		tty = false
	}
	q := url.Values{"container": {container}, "command": x.command, "stdout": {"true"}}
	if x.stdin {
		q.Set("stdin", "true")
	}
	if tty {
		q.Set("tty", "true")
	} else {
		q.Set("stderr", "true") // a terminal has one stream
	}
	u, err := url.Parse(c.config.Host + "/api/v1/namespaces/" + pod.Namespace + "/pods/" + pod.Name + "/" + verb)
	if err != nil {
		return err
	}
	u.RawQuery = q.Encode()
	executor, err := executorFor(c, u)
	if err != nil {
		return err
	}
	opts := remotecommand.StreamOptions{Stdout: s.Out, Tty: tty}
	if x.stdin {
		opts.Stdin = s.In
	}
	if !tty {
		opts.Stderr = s.Err
	} else {
		fd := int(stdin.Fd())
		state, err := term.MakeRaw(fd)
		if err != nil {
			return fmt.Errorf("terminal: %w", err)
		}
		defer term.Restore(fd, state)
		sizes := watchSize(ctx, fd)
		opts.TerminalSizeQueue = sizes
	}
	err = executor.StreamWithContext(ctx, opts)
	var exit utilexec.ExitError
	if errors.As(err, &exit) && exit.Exited() {
		fmt.Fprintf(notes.Err, "command terminated with exit code %d\n", exit.ExitStatus())
		return &ExitError{Code: exit.ExitStatus()}
	}
	return err
}

// executorFor tries WebSocket first, as kubectl does, and SPDY for servers without it.
func executorFor(c *conn, u *url.URL) (remotecommand.Executor, error) {
	ws, err := remotecommand.NewWebSocketExecutor(c.config, http.MethodGet, u.String())
	if err != nil {
		return nil, err
	}
	spdy, err := remotecommand.NewSPDYExecutor(c.config, http.MethodPost, u)
	if err != nil {
		return nil, err
	}
	return remotecommand.NewFallbackExecutor(ws, spdy, func(err error) bool {
		return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
	})
}

// sizeQueue returns the terminal's size, first as it is, then at each change.
type sizeQueue struct {
	ctx     context.Context
	changed chan os.Signal
	fd      int
	first   bool
}

func watchSize(ctx context.Context, fd int) *sizeQueue {
	q := &sizeQueue{ctx: ctx, changed: make(chan os.Signal, 1), fd: fd, first: true}
	screen.NotifyResize(q.changed)
	context.AfterFunc(ctx, func() { signal.Stop(q.changed) })
	return q
}

// Next implements remotecommand.TerminalSizeQueue.
func (q *sizeQueue) Next() *remotecommand.TerminalSize {
	if !q.first {
		select {
		case <-q.changed:
		case <-q.ctx.Done():
			return nil
		}
	}
	q.first = false
	w, h, err := term.GetSize(q.fd)
	if err != nil {
		return nil
	}
	return &remotecommand.TerminalSize{Width: uint16(w), Height: uint16(h)}
}
