package ctrd

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"petrel.dev/petrel/edgeagent/cruntime"
	"petrel.dev/petrel/internal/contain"
)

// Exec implements podrun.Runtime.
func (r *Runtime) Exec(ctx context.Context, id string, spec cruntime.ExecSpec) (int, error) {
	life := ctx // of the caller; the process is ended with it, but cleaned up beyond it
	ctx = r.ns(context.WithoutCancel(ctx))
	container, task, err := r.started(ctx, id)
	if err != nil {
		return 0, err
	}
	full, err := container.Spec(ctx)
	if err != nil {
		return 0, fmt.Errorf("exec: %w", err)
	}
	process := *full.Process
	process.Args, process.Terminal, process.ConsoleSize = spec.Command, spec.TTY, nil
	if spec.TTY {
		process.Env = append(process.Env[:len(process.Env):len(process.Env)], "TERM=xterm")
	}
	var b [8]byte
	rand.Read(b[:])
	stdout, stderr := r.output(id, spec.Stdout), r.output(id, spec.Stderr)
	opts := []cio.Opt{cio.WithStreams(nil, stdout, stderr), cio.WithFIFODir(filepath.Join(r.cfg.RunDir, "fifo"))}
	var closeStdin func()
	stdinDone := make(chan struct{})
	if spec.Stdin != nil {
		in, feed := io.Pipe()
		closeStdin = func() { feed.Close() }
		go func() {
			defer close(stdinDone)
			defer feed.Close()
			contain.Go(r.cfg.Log, "ctrd/stdin", id, func() { _, _ = io.Copy(feed, spec.Stdin) })
		}()
		opts[0] = cio.WithStreams(in, stdout, stderr)
	}
	if spec.TTY {
		opts = append(opts, cio.WithTerminal)
	}
	p, err := task.Exec(ctx, hex.EncodeToString(b[:]), &process, cio.NewCreator(opts...))
	if err != nil {
		return 0, notFound(err)
	}
	defer func() {
		if closeStdin != nil {
			closeStdin()
		}
		if _, err := p.Delete(ctx, client.WithProcessKill); err != nil && !errdefs.IsNotFound(err) {
			r.cfg.Log.Debug("exec not deleted", "container", id, "error", err)
		}
	}()
	exit, err := p.Wait(ctx)
	if err != nil {
		return 0, fmt.Errorf("exec: %w", err)
	}
	if err := p.Start(ctx); err != nil {
		return 0, fmt.Errorf("exec: %w", err)
	}
	for {
		select {
		case <-life.Done():
			_ = p.Kill(ctx, syscall.SIGKILL)
			select {
			case <-exit:
			case <-time.After(5 * time.Second):
			}
			return 0, context.Cause(life)
		case <-stdinDone:
			stdinDone = nil
			_ = p.CloseIO(ctx, client.WithStdinCloser)
		case s, ok := <-spec.Resize:
			if !ok {
				spec.Resize = nil
				continue
			}
			_ = p.Resize(ctx, uint32(s.Width), uint32(s.Height))
		case st := <-exit:
			if io := p.IO(); io != nil {
				waitIO(io, 2*time.Second) // a grandchild may keep the pipes open without end
			}
			return int(st.ExitCode()), st.Error()
		}
	}
}

func waitIO(streams cio.IO, limit time.Duration) {
	done := make(chan struct{})
	go func() {
		streams.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(limit):
		streams.Cancel()
	}
}

// output is w for the output of a process in a container, or io.Discard. containerd's library writes to it in goroutines
// of its own, so a panic in w becomes an error of that write.
func (r *Runtime) output(id string, w io.Writer) io.Writer {
	if w == nil {
		return io.Discard
	}
	return writerFunc(func(p []byte) (n int, err error) {
		err = contain.Do(r.cfg.Log, "ctrd/output", id, func() (err error) {
			n, err = w.Write(p)
			return err
		})
		return n, err
	})
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// Stdin opens the way into a container that was started with stdin. To close it is the end of the container's input when
// that is for one client only; else other clients may follow.
func (r *Runtime) Stdin(_ context.Context, c cruntime.Container) (io.WriteCloser, error) {
	f, err := os.OpenFile(r.stdinPath(c.PodUID, c.Name), os.O_WRONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("stdin of container %s: %w", c.Name, err)
	}
	return &stdin{f, func() error { return r.endStdin(c.ID) }}, nil
}

type stdin struct {
	*os.File
	end func() error
}

func (s *stdin) Close() error { return errors.Join(s.File.Close(), s.end()) }

// endStdin has the shim close its own end of a container's stdin, which it holds so that clients can come and go.
func (r *Runtime) endStdin(id string) error {
	ctx, cancel := context.WithTimeout(r.ns(context.Background()), 10*time.Second)
	defer cancel()
	container, task, err := r.started(ctx, id)
	if err != nil {
		return err
	}
	labels, err := container.Labels(ctx)
	if err != nil || !strings.Contains(labels[labelFlags], "o") {
		return notFound(err)
	}
	return task.CloseIO(ctx, client.WithStdinCloser)
}

// Resize sets the size of a container's terminal.
func (r *Runtime) Resize(ctx context.Context, id string, s cruntime.Size) error {
	ctx = r.ns(ctx)
	_, task, err := r.started(ctx, id)
	if err != nil {
		return err
	}
	return task.Resize(ctx, uint32(s.Width), uint32(s.Height))
}
