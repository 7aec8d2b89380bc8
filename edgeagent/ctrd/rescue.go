package ctrd

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"petrel.dev/petrel/edgeagent/podlog"
)

// rescueEvery is how often output is looked for that nobody reads.
const rescueEvery = time.Minute

// runningTask is what is needed to look after a running container's output without asking containerd.
type runningTask struct {
	pid     int
	logPath string
	taken   [2]bool // stdout, stderr: this process reads it
}

// rescue takes over output that the shim does not read any more. A shim ends its copying for good when one write fails,
// as it does on a full disk; the container then stops at its next write but a few, and stays so when there is space
// again. Its pipes are still there, held by the shim, and whoever opens one can read on. A terminal's cannot be had so.
func (r *Runtime) rescue() {
	r.mu.Lock()
	tasks := make(map[string]runningTask, len(r.tasks))
	for id, t := range r.tasks {
		tasks[id] = t
	}
	r.mu.Unlock()
	shims := map[int][]openFile{}
	for id, t := range tasks {
		shim := parentOf(t.pid)
		if shim == 0 {
			continue
		}
		if _, known := shims[shim]; !known {
			shims[shim] = filesOf(shim)
		}
		stdout, stderr := podlog.SpoolPaths(t.logPath)
		for i, spool := range []string{stdout, stderr} {
			if t.taken[i] || !abandoned(shims[shim], spool, t.pid, i+1) {
				continue
			}
			if err := r.takeOver(t, i); err != nil {
				r.cfg.Log.Warn("container's output is not read any more", "container", id, "log", t.logPath, "error", err)
				continue
			}
			r.cfg.Log.Warn("container's output was not read any more (was the disk full?), reading on", "container", id, "log", t.logPath)
			t.taken[i] = true
			r.mu.Lock()
			if _, still := r.tasks[id]; still {
				r.tasks[id] = t
			}
			r.mu.Unlock()
		}
	}
}

// abandoned: a shim holds the pipe that a process writes to, but not the file that what comes out of it belongs in.
func abandoned(shim []openFile, spool string, pid, fd int) bool {
	want, err := os.Stat(spool)
	if err != nil {
		return false
	}
	pipe, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, fd))
	if err != nil || !strings.HasPrefix(pipe, "pipe:") {
		return false
	}
	held := false
	for _, f := range shim {
		if f.info != nil && os.SameFile(f.info, want) {
			return false
		}
		held = held || f.name == pipe
	}
	return held
}

func (r *Runtime) takeOver(t runningTask, stream int) error {
	pipe, err := os.OpenFile(fmt.Sprintf("/proc/%d/fd/%d", t.pid, stream+1), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	stdout, stderr := podlog.SpoolPaths(t.logPath)
	return podlog.Feed([]string{stdout, stderr}[stream], pipe)
}

// openFile is one that a process has open.
type openFile struct {
	name string      // as the kernel calls it
	info os.FileInfo // nil: of no file
}

func filesOf(pid int) []openFile {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var out []openFile
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		f := openFile{}
		if f.name, err = os.Readlink(path); err != nil {
			continue
		}
		if strings.HasPrefix(f.name, "/") {
			f.info, _ = os.Stat(path) // one that is gone is not the one looked for
		}
		out = append(out, f)
	}
	return out
}

// parentOf is the process that a process belongs to, a container's shim for its first; 0: it is gone.
func parentOf(pid int) int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(f) < 2 {
		return 0
	}
	ppid, _ := strconv.Atoi(f[1])
	return ppid
}

// runRescue rescues now and then, until ctx ends.
func (r *Runtime) runRescue(ctx context.Context) error {
	every := time.NewTicker(rescueEvery)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-every.C:
			r.rescue()
		}
	}
}
