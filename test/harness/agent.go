package harness

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"petrel.dev/petrel/edgeagent/cruntime/runtimetest"
	"petrel.dev/petrel/edgeagent/ctrd"
)

// Agent is a running node.
type Agent struct {
	*Process
	T    *testing.T
	On   Machine
	Dir  string
	Name string
	Args []string
	Env  []string // variables that come before those of the test

	images map[string]v1.Image
}

// bringImages puts the demonstration image, and what the hub's test has named, where the agent imports them from at its start.
func (a *Agent) bringImages() {
	a.T.Helper()
	out, err := exec.Command(Petrel, "image", "build-hello", "petrel.local/hello:v1", filepath.Join(a.Dir, "images", "hello.tar")).CombinedOutput()
	if err != nil {
		a.T.Fatalf("petrel image build-hello: %v: %s", err, out)
	}
	n := 0
	for ref, img := range a.images {
		b, err := io.ReadAll(runtimetest.Tar(a.T, ref, img))
		if err != nil {
			a.T.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(a.Dir, "images", fmt.Sprintf("%d.tar", n)), b, 0o600); err != nil {
			a.T.Fatal(err)
		}
		n++
	}
}

// Start starts the agent, again with the same directory after a stop.
func (a *Agent) Start() {
	a.T.Helper()
	args := append([]string{"agent", "--data-dir", a.Dir, "--node-name", a.Name, "--bridge", "pte0", "--containerd", "private", "--no-keep-pods"}, a.Args...)
	a.Process = StartWith(a.T, a.On, a.Env, "agent "+a.Name, args...)
}

// PowerCut kills the agent, its containerd, every shim and container at once, and wipes what a reboot wipes: mounts,
// namespaces, interfaces, tmpfs. What is on the disk stays as it is.
func (a *Agent) PowerCut() {
	a.T.Helper()
	a.Stop(syscall.SIGKILL)
	a.wipe()
}

// wipe is powerCut for an agent that has ended.
func (a *Agent) wipe() {
	a.T.Helper()
	run := RunDir(a.Dir)
	for range 3 { // shims that were just being started
		for _, pid := range append(ProcessesOf(a.Dir), ProcessesOf(run)...) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		time.Sleep(100 * time.Millisecond)
	}
	mounts, err := os.ReadFile("/proc/mounts")
	if err != nil {
		a.T.Fatal(err)
	}
	lines := strings.Split(string(mounts), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		if f := strings.Fields(lines[i]); len(f) > 1 && (strings.HasPrefix(f[1], a.Dir) || strings.HasPrefix(f[1], run+"/")) {
			_ = syscall.Unmount(f[1], syscall.MNT_DETACH)
		}
	}
	if err := os.RemoveAll(run); err != nil {
		a.T.Fatal(err)
	}
	if a.On.NS != "" {
		exec.Command("ip", "-n", a.On.NS, "link", "del", "pte0").Run()
		exec.Command("ip", "-n", a.On.NS, "route", "flush", "table", "local", "proto", "static").Run()
	}
}

// ProcessesOf finds all processes that belong to an agent's directory: by their arguments, or, for the processes of
// containers, by their root file system.
func ProcessesOf(dir string) []int {
	var pids []int
	procs, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range procs {
		pid, _ := strconv.Atoi(filepath.Base(p))
		if pid == os.Getpid() {
			continue
		}
		cmdline, _ := os.ReadFile(filepath.Join(p, "cmdline"))
		mounts, _ := os.ReadFile(filepath.Join(p, "mountinfo"))
		inContainer := false
		for line := range strings.Lines(string(mounts)) {
			f := strings.Fields(line)
			inContainer = inContainer || len(f) > 4 && f[4] == "/" && strings.Contains(line, dir)
		}
		if bytes.Contains(cmdline, []byte(dir)) || inContainer {
			pids = append(pids, pid)
		}
	}
	return pids
}

// RunDir is where the agent of a data directory keeps what a reboot wipes.
func RunDir(dir string) string { return ctrd.DefaultRunDir(filepath.Join(dir, "agent")) }

// Sweep ends what a failed test, or pods that were to be kept, would leave.
func Sweep(t *testing.T, on Machine, dir string) {
	t.Helper()
	t.Cleanup(func() {
		(&Agent{T: t, On: on, Dir: dir}).wipe()
	})
}
