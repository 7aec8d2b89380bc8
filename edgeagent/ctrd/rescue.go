package ctrd

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"petrel.dev/petrel/edgeagent/podlog"
	"petrel.dev/petrel/internal/contain"
	"petrel.dev/petrel/internal/safefile"
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
// again. Its pipes are still there, held by the shim, and a process that opens one can read on. A terminal's cannot be had so.
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
		if shim == 0 || !strings.HasPrefix(program(shim), shimProgram) {
			continue
		}
		if _, known := shims[shim]; !known {
			shims[shim] = filesOf(shim)
		}
		stdout, stderr := podlog.SpoolPaths(t.logPath)
		for i, spool := range []string{stdout, stderr} {
			if t.taken[i] {
				continue
			}
			pipe, abandoned := abandoned(shims[shim], spool, t.pid, i+1)
			if !abandoned {
				continue
			}
			if err := r.takeOver(pipe, spool); err != nil {
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

// abandoned returns the shim's end of the pipe that a process writes to, if the shim does not have the file open that what
// comes out of it belongs in. What the process itself has open is only compared: it may change it at any time.
func abandoned(shim []openFile, spool string, pid, fd int) (openFile, bool) {
	want, err := os.Stat(spool)
	if err != nil {
		return openFile{}, false
	}
	name, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, fd))
	if err != nil || !strings.HasPrefix(name, "pipe:[") {
		return openFile{}, false
	}
	held, found := openFile{}, false
	for _, f := range shim {
		if f.info != nil && os.SameFile(f.info, want) {
			return openFile{}, false
		}
		if f.name == name {
			held, found = f, true
		}
	}
	return held, found
}

// takeOver reads on from a pipe into the spool.
func (r *Runtime) takeOver(pipe openFile, spool string) error {
	f, err := safefile.Pipe(pipe.path, pipe.name)
	if err != nil {
		return err
	}
	return podlog.Feed(r.cfg.Log, spool, f)
}

// openFile is one that a process has open.
type openFile struct {
	path string      // below /proc
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
		f := openFile{path: path}
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

// runRescue rescues now and then, until ctx ends.
func (r *Runtime) runRescue(ctx context.Context) error {
	every := time.NewTicker(rescueEvery)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-every.C:
			contain.Go(r.cfg.Log, "ctrd/rescue", "container output", r.rescue)
		}
	}
}
