package ctrd

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"petrel.dev/petrel/internal/safefile"
)

// Which process is whose is decided by what only the host can make so: which program runs in it, as the kernel links it,
// and that its working directory or its output is an inode in a directory that belongs to the agent alone. Never by its
// arguments or its working directory's name or content: those a process in any container chooses for itself. Nor is
// anything read here that a process can make wait: /proc/PID/cmdline and environ are its own memory, which may lie on a
// file system that does not answer.

// findProcesses returns the processes that match, which must not wait for any of them. It is the only walk over /proc.
func findProcesses(match func(pid int) bool) []int {
	entries, _ := os.ReadDir("/proc")
	var pids []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil && match(pid) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// program is the base name of the file that a process runs, "" of one that is gone or the kernel's own.
func program(pid int) string {
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		return ""
	}
	return filepath.Base(strings.TrimSuffix(exe, " (deleted)")) // replaced by an upgrade
}

// inode is one file, whatever it is called.
type inode struct {
	major, minor uint32
	ino          uint64
}

// inodeOf returns what a path leads to; false: nothing. It asks no server or other program: a file system that would have
// to is answered for by what the kernel knows already.
func inodeOf(path string) (inode, bool) {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, unix.AT_STATX_DONT_SYNC|unix.AT_NO_AUTOMOUNT, unix.STATX_INO, &st); err != nil {
		return inode{}, false
	}
	return inode{st.Dev_major, st.Dev_minor, st.Ino}, true
}

// shimProgram begins the name of the program that serves a pod's containers for containerd.
const shimProgram = "containerd-shim"

// maxBundle bounds the description of a container that containerd writes. Bytes.
const maxBundle = 8 << 20

// bundles are the directories, by inode, that containerd made for the containers of a pod.
func (r *Runtime) bundles(podUID string) []inode {
	dir := r.bundlesDir()
	entries, _ := os.ReadDir(dir)
	var out []inode
	for _, e := range entries {
		b, err := safefile.ReadIn(dir, filepath.Join(e.Name(), "config.json"), maxBundle)
		var spec struct{ Annotations map[string]string }
		if err != nil || json.Unmarshal(b, &spec) != nil || spec.Annotations[shimGroup] != podUID {
			continue
		}
		if i, ok := inodeOf(filepath.Join(dir, e.Name())); ok {
			out = append(out, i)
		}
	}
	return out
}

// bundlesDir is where containerd keeps what it hands to the OCI runtime: only root can look into it. Of a system's
// containerd with another state directory than the usual it is not known, and nothing is found.
func (r *Runtime) bundlesDir() string {
	state := "/run/containerd"
	if r.child != nil {
		state = r.child.stateDir()
	}
	return filepath.Join(state, "io.containerd.runtime.v2.task", r.cfg.Namespace)
}

// shims are the processes that serve a pod's containers for containerd. One works in the bundle that it was started for;
// containerd deletes that when it is stopped.
func (r *Runtime) shims(podUID string) []int {
	bundles := r.bundles(podUID)
	if len(bundles) == 0 {
		return nil
	}
	return findProcesses(func(pid int) bool {
		if !strings.HasPrefix(program(pid), shimProgram) {
			return false
		}
		cwd, ok := inodeOf(fmt.Sprintf("/proc/%d/cwd", pid))
		return ok && slices.Contains(bundles, cwd)
	})
}

// shimGroup is the annotation by which containers share a shim: those of one pod do.
const shimGroup = "io.containerd.runc.v2.group"

// alive returns the process IDs of private containerds that run on our directories. There may be one that nobody has
// noted, of an agent that was killed while it started it: it keeps the database locked, so that no other can serve.
func (c *child) alive() []int {
	var logs []inode // what its output goes to, from its first moment on, before and after a rotation
	for _, path := range []string{c.logPath(), c.logPath() + ".1"} {
		if i, ok := inodeOf(path); ok {
			logs = append(logs, i)
		}
	}
	return findProcesses(func(pid int) bool {
		if program(pid) != "containerd" || !running(pid) {
			return false
		}
		out, ok := inodeOf(fmt.Sprintf("/proc/%d/fd/1", pid))
		return ok && slices.Contains(logs, out)
	})
}

// maxStat bounds a /proc/PID/stat. Bytes.
const maxStat = 4096

// statOf are the fields of /proc/PID/stat after the program's name, which may hold anything: the first is the state, the
// second the parent. nil: the process is gone.
func statOf(pid int) []string {
	b, err := safefile.Read(fmt.Sprintf("/proc/%d/stat", pid), maxStat)
	if err != nil {
		return nil
	}
	return strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
}

// running reports whether a process exists and has not ended.
func running(pid int) bool {
	f := statOf(pid)
	return len(f) > 0 && f[0] != "Z"
}

// parentOf is the process that a process belongs to, a container's shim for its first; 0: it is gone.
func parentOf(pid int) int {
	f := statOf(pid)
	if len(f) < 2 {
		return 0
	}
	ppid, _ := strconv.Atoi(f[1])
	return ppid
}
