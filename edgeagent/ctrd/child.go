package ctrd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"petrel.dev/petrel/edgeagent/programs"
	"petrel.dev/petrel/internal/safefile"
)

const systemSocket = "/run/containerd/containerd.sock"

// child is a private containerd. It runs in a session of its own and outlives the agent.
type child struct {
	root, state string // directories
	socket      string
	oomScore    int // for the out-of-memory killer
	programs    programs.Set
	log         *slog.Logger

	fresh bool // started by this process, not found running

	mu  sync.Mutex
	pid int
}

// answers reports whether a containerd serves at a socket.
func answers(ctx context.Context, socket string) bool {
	if fi, err := os.Stat(socket); err != nil || fi.Mode()&os.ModeSocket == 0 {
		return false
	}
	c, err := client.New(socket, client.WithTimeout(2*time.Second))
	if err != nil {
		return false
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	ok, err := c.IsServing(ctx)
	return err == nil && ok
}

// storeWorks reports whether a containerd that serves has its database: it starts without a damaged one, and then knows no
// containers and images at all.
func storeWorks(ctx context.Context, socket string) bool {
	c, err := client.New(socket, client.WithTimeout(2*time.Second))
	if err != nil {
		return true // another matter
	}
	defer c.Close()
	_, err = c.NamespaceService().List(ctx)
	return !errdefs.IsNotImplemented(err)
}

// startChild finds the private containerd of an earlier agent, or starts one.
func startChild(ctx context.Context, root, state string, set programs.Set, oomScore int, log *slog.Logger) (*child, error) {
	c := &child{root: root, state: state, socket: filepath.Join(state, "containerd.sock"), programs: set, oomScore: oomScore, log: log}
	for _, d := range []string{root, state} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("containerd: %w", err)
		}
	}
	if len(c.socket) > 100 {
		return nil, fmt.Errorf("containerd: the socket path %s is too long for the kernel; use a shorter run directory", c.socket)
	}
	if len(c.alive()) > 0 { // it may run what an upgrade of this binary replaces
		if err := set.Prepare(log); err != nil {
			return nil, err
		}
	}
	for wait := time.Duration(0); wait < 15*time.Second && len(c.alive()) > 0 && ctx.Err() == nil; wait += 100 * time.Millisecond {
		pid := servedBy(c.socket)
		if pid != 0 && set.Outdated(pid, programs.Containerd) {
			log.Info("containerd is of another version, starting it anew; containers go on", "pid", pid)
			c.kill(pid)
			break
		}
		if pid != 0 && answers(ctx, c.socket) && storeWorks(ctx, c.socket) {
			c.pid = pid
			c.killBut(pid)
			log.Info("containerd adopted", "pid", pid, "socket", c.socket)
			return c, nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	c.killBut(0)
	c.fresh = true
	return c, c.start(ctx)
}

// killBut ends the private containerds that run, except the one that serves.
func (c *child) killBut(serving int) {
	for _, pid := range c.alive() {
		if pid != serving {
			c.log.Warn("containerd of an earlier agent does not answer, ending it", "pid", pid)
			c.kill(pid)
		}
	}
}

// servedBy returns the process that listens at a socket, or 0.
func servedBy(socket string) int {
	conn, err := net.DialTimeout("unix", socket, time.Second)
	if err != nil {
		return 0
	}
	defer conn.Close()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0
	}
	pid := 0
	_ = raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			pid = int(cred.Pid)
		}
	})
	return pid
}

func (c *child) config() string { return filepath.Join(c.root, "config.toml") }

func (c *child) logPath() string { return filepath.Join(c.root, "containerd.log") }

// stateDir is containerd's own, where its bundles are.
func (c *child) stateDir() string { return filepath.Join(c.state, "state") }

// start runs containerd and waits until it serves. When its own database turns out to be damaged, which a power cut can
// do, everything of it is set aside once: images are then pulled or imported again.
func (c *child) start(ctx context.Context) error {
	err := c.launch(ctx)
	var dead *diedError
	if errors.As(err, &dead) && dead.damaged() {
		aside := filepath.Join(c.root, "root.damaged")
		c.log.Error("containerd's store is damaged, beginning with an empty one", "kept", aside, "error", err)
		if err := os.RemoveAll(aside); err != nil {
			return err
		}
		if err := os.Rename(filepath.Join(c.root, "root"), aside); err != nil {
			return err
		}
		err = c.launch(ctx)
	}
	return err
}

// diedError is a containerd that ended before it served.
type diedError struct {
	output  string
	noStore bool // it served, but without its database
}

func (e *diedError) Error() string {
	text := e.output
	if i := strings.Index(text, "goroutine "); i > 0 { // a crash: its stacks are in the log
		text = text[:i]
	}
	if len(text) > 1500 {
		text = "…" + text[len(text)-1500:]
	}
	return "containerd ended while starting: " + strings.TrimSpace(text)
}

func (e *diedError) damaged() bool {
	if strings.Contains(e.output, "no space left") { // a full disk is not a damaged one
		return false
	}
	if e.noStore {
		return true
	}
	for _, s := range []string{"bbolt", "meta.db", "metadata.db", "invalid database", "checksum error", "version mismatch", "page "} {
		if strings.Contains(e.output, s) {
			return true
		}
	}
	return false
}

func (c *child) launch(ctx context.Context) error {
	if err := c.programs.Prepare(c.log); err != nil {
		return err
	}
	if err := os.WriteFile(c.config(), []byte(c.configText()), 0o600); err != nil {
		return err
	}
	logPath := c.logPath()
	if fi, err := os.Stat(logPath); err == nil && fi.Size() > 4<<20 {
		_ = os.Rename(logPath, logPath+".1")
	}
	out, err := os.OpenFile(logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	from, _ := out.Seek(0, 2)
	_ = os.Remove(c.socket)
	cmd := exec.Command(c.programs.Path(programs.Containerd), "--config", c.config())
	cmd.Env = c.programs.Environ()
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Dir = "/"
	// A session of its own: signals for the agent's process group or terminal are not for containerd.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("containerd: %w", err)
	}
	pid := cmd.Process.Pid
	c.mu.Lock()
	c.pid = pid // at once: stop must find it, though nobody may wait any more for it to serve
	c.mu.Unlock()
	died := make(chan struct{})
	go func() { _ = cmd.Wait(); close(died) }() // supervise sees the end too; this only reaps
	if err := os.WriteFile(filepath.Join(c.state, "pid"), []byte(strconv.Itoa(pid)), 0o600); err != nil {
		return err
	}
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end); {
		if answers(ctx, c.socket) {
			if !storeWorks(ctx, c.socket) {
				c.kill(pid)
				return &diedError{output: since(logPath, from), noStore: true}
			}
			c.log.Info("containerd started", "pid", pid, "socket", c.socket)
			return nil
		}
		select {
		case <-died:
			return &diedError{output: since(logPath, from)}
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(30 * time.Millisecond):
		}
	}
	c.kill(pid)
	return fmt.Errorf("containerd does not serve after 60 s; see %s", logPath)
}

func since(path string, from int64) string {
	f, err := safefile.Open(path)
	if err != nil {
		return "see " + path
	}
	defer f.Close()
	b, err := io.ReadAll(io.NewSectionReader(f, from, 256<<10))
	if err != nil {
		return "see " + path
	}
	return strings.TrimSpace(string(b))
}

// configText leaves out what Petrel does not use: the smaller, the better on a small board.
func (c *child) configText() string {
	return fmt.Sprintf(`# Written by Petrel at each start.
version = 2
root = %q
state = %q
oom_score = %d
disabled_plugins = [
  "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime", "io.containerd.podsandbox.controller.v1.podsandbox",
  "io.containerd.internal.v1.opt", "io.containerd.internal.v1.tracing", "io.containerd.internal.v1.restart", "io.containerd.nri.v1.nri",
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.erofs",
]

[grpc]
  address = %q

[ttrpc]
  address = %q

[debug]
  level = "warn"
`, filepath.Join(c.root, "root"), c.stateDir(), c.oomScore, c.socket, c.socket+".ttrpc")
}

// supervise starts containerd again whenever it has ended; back is called when it serves again.
func (c *child) supervise(ctx context.Context, back func()) error {
	delay := time.Second
	for {
		c.mu.Lock()
		pid := c.pid
		c.mu.Unlock()
		begin := time.Now()
		if waitPID(ctx, pid); ctx.Err() != nil {
			return nil
		}
		c.log.Warn("containerd has ended, starting it again", "pid", pid)
		if time.Since(begin) > time.Minute {
			delay = time.Second
		}
		for {
			err := c.start(ctx)
			if err == nil {
				break
			}
			if ctx.Err() != nil {
				return nil
			}
			c.log.Error("containerd does not start", "error", err, "retry", delay)
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(delay):
			}
			delay = min(2*delay, time.Minute)
		}
		back()
	}
}

// waitPID returns when a process, which need not be a child, has ended.
func waitPID(ctx context.Context, pid int) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		for ctx.Err() == nil && running(pid) && !errors.Is(err, unix.ESRCH) {
			time.Sleep(time.Second) // a kernel before 5.3
		}
		return
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	defer f.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return
	}
	defer r.Close()
	stop := context.AfterFunc(ctx, func() { w.Close() })
	defer func() {
		if stop() {
			w.Close()
		}
	}()
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}, {Fd: int32(r.Fd()), Events: unix.POLLIN}}
	for {
		if _, err := unix.Poll(fds, -1); err != unix.EINTR {
			return
		}
	}
}

// stop ends containerd.
func (c *child) stop() {
	c.mu.Lock()
	pid := c.pid
	c.mu.Unlock()
	c.kill(pid)
}

func (c *child) kill(pid int) {
	if pid <= 1 {
		return
	}
	_ = unix.Kill(pid, unix.SIGTERM)
	for i := 0; i < 100 && running(pid); i++ {
		time.Sleep(50 * time.Millisecond)
	}
	if running(pid) {
		_ = unix.Kill(pid, unix.SIGKILL)
		for i := 0; i < 40 && running(pid); i++ {
			time.Sleep(50 * time.Millisecond)
		}
	}
	_ = os.Remove(filepath.Join(c.state, "pid"))
}
