package ctrd

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"petrel.dev/petrel/edgeagent/cgroup"
	"petrel.dev/petrel/edgeagent/cruntime"
	"petrel.dev/petrel/edgeagent/cruntime/runtimetest"
)

// containerdPID is the private containerd's.
func (r *Runtime) containerdPID() int {
	r.child.mu.Lock()
	defer r.child.mu.Unlock()
	return r.child.pid
}

func removePod(t *testing.T, r *Runtime, pod string) {
	t.Helper()
	ctx := context.Background()
	list, err := r.Containers(ctx, pod)
	if err != nil {
		t.Error(err)
	}
	for _, c := range list {
		_ = r.Signal(ctx, c.ID, syscall.SIGKILL)
		for end := time.Now().Add(runtimetest.Hope); r.Remove(ctx, c.ID) != nil && time.Now().Before(end); {
			time.Sleep(20 * time.Millisecond)
		}
	}
	if err := r.RemoveSandbox(ctx, pod); err != nil {
		t.Error(err)
	}
}

// TestStartCutOff checks that a start that is cut off by the end of the agent, or of containerd, is no end of the container: it
// was never run, and the next look at it starts it.
func TestStartCutOff(t *testing.T) {
	r := private(t)
	for _, how := range []string{"agent", "containerd"} {
		t.Run(how, func(t *testing.T) {
			for k := 0; !cutStart(t, r, how, fmt.Sprintf("%s-%d", how, k)); k++ {
				if k == 50 {
					t.Fatal("every start is over before it can be cut off")
				}
			}
		})
	}
}

// cutStart is TestStartCutOff with a pod of its own; it returns false when the start was faster.
func cutStart(t *testing.T, r *Runtime, how, pod string) bool {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	sb, err := r.Sandbox(ctx, cruntime.SandboxSpec{PodUID: pod, Hostname: "h"})
	if err != nil {
		t.Fatal(err)
	}
	defer removePod(t, r, pod)
	spec := cruntime.ContainerSpec{PodUID: pod, Name: "c", SandboxID: sb.ID, Image: testImage, Command: []string{"/bin/sleep", "1000"},
		LogPath: filepath.Join(t.TempDir(), "c.log")}
	failed := make(chan error, 1)
	go func() {
		_, err := r.Start(ctx, spec)
		failed <- err
	}()
	for end := time.Now().Add(runtimetest.Hope); ; time.Sleep(time.Millisecond) { // the record is there, the task is not
		if _, err := r.client.LoadContainer(r.ns(context.Background()), containerID(spec)); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal("no record of the container")
		}
	}
	if how == "agent" {
		cancel()
	} else if err := syscall.Kill(r.containerdPID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	faster := <-failed == nil
	var list []cruntime.Container
	for end := time.Now().Add(runtimetest.Hope); ; time.Sleep(50 * time.Millisecond) {
		if list, err = r.Containers(context.Background(), pod); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	if faster {
		return false
	}
	if len(list) != 1 || list[0].State == cruntime.Exited {
		t.Fatalf("after the cut: %+v", list)
	}
	if _, err := r.Start(context.Background(), spec); err != nil {
		t.Fatal(err)
	}
	if list, err = r.Containers(context.Background(), pod); err != nil || len(list) != 1 || list[0].State != cruntime.Running {
		t.Errorf("started again: %+v, %v", list, err)
	}
	return true
}

// podCgroups returns the cgroups of a pod, one in each hierarchy.
func podCgroups(t *testing.T, pod string) (dirs []string) {
	t.Helper()
	for _, hierarchy := range []string{cgroup.Root, cgroup.Root + "/*"} {
		found, err := filepath.Glob(hierarchy + cgroup.Path(pod, ""))
		if err != nil {
			t.Fatal(err)
		}
		dirs = append(dirs, found...)
	}
	return dirs
}

// TestStrays checks that a process that containerd has lost does not keep its pod from going.
func TestStrays(t *testing.T) {
	r := private(t)
	ctx := context.Background()
	if _, err := r.Sandbox(ctx, cruntime.SandboxSpec{PodUID: "strays", Hostname: "h"}); err != nil {
		t.Fatal(err)
	}
	stray := exec.Command("sleep", "1000")
	if err := stray.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- stray.Wait() }()
	defer stray.Process.Kill()
	in := 0
	for _, dir := range podCgroups(t, "strays") {
		if os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(stray.Process.Pid)), 0) == nil {
			in++
		}
	}
	if in == 0 {
		t.Fatal("the process is in no cgroup of the pod")
	}
	if err := r.RemoveSandbox(ctx, "strays"); err != nil {
		t.Error(err)
	}
	select {
	case <-ended:
	case <-time.After(runtimetest.Hope):
		t.Error("the process is left")
	}

	// The shim of a container that containerd has lost goes as well, and nobody else's.
	shims := map[string]int{}
	for _, pod := range []string{"lost", "other"} {
		sb, err := r.Sandbox(ctx, cruntime.SandboxSpec{PodUID: pod, Hostname: "h"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.Start(ctx, cruntime.ContainerSpec{PodUID: pod, Name: "c", SandboxID: sb.ID, Image: testImage, Command: []string{"/bin/sleep", "1000"},
			LogPath: filepath.Join(t.TempDir(), "c.log")}); err != nil {
			t.Fatal(err)
		}
		defer removePod(t, r, pod)
		list := r.shims(pod)
		if len(list) != 1 {
			t.Fatalf("shims of pod %s: %v", pod, list)
		}
		shims[pod] = list[0]
	}
	if err := r.RemoveSandbox(ctx, "lost"); err != nil {
		t.Error(err)
	}
	for end := time.Now().Add(runtimetest.Hope); running(shims["lost"]); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the shim is left")
		}
	}
	if !running(shims["other"]) {
		t.Error("the shim of another pod is gone")
	}
}

// TestPipesAreTidied checks that what an agent that was killed has left of commands in containers goes with the next one.
func TestPipesAreTidied(t *testing.T) {
	need(t)
	data, run := dirs(t)
	left := filepath.Join(run, "fifo", "12345")
	if err := os.MkdirAll(left, 0o700); err != nil {
		t.Fatal(err)
	}
	time.Sleep(10 * time.Millisecond) // file times are coarse
	r, end := open(t, data, run)
	defer func() {
		end()
		if err := r.Close(true); err != nil {
			t.Error(err)
		}
	}()
	for end := time.Now().Add(runtimetest.Hope); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(left); os.IsNotExist(err) {
			break
		}
		if time.Now().After(end) {
			t.Fatal("they are left")
		}
	}
}

// TestContainerdNobodyNoted checks that an agent that is killed while it starts containerd leaves one that no file tells of,
// and that keeps the database locked. The next agent ends it, or finds it serving and takes it.
func TestContainerdNobodyNoted(t *testing.T) {
	need(t)
	for _, socket := range []bool{true, false} {
		data, run := dirs(t)
		cfg := Config{Private: true, DataDir: data, RunDir: run, Log: slog.New(slog.DiscardHandler)}
		r, err := Open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		pid := r.containerdPID()
		if err := os.Remove(filepath.Join(run, "containerd", "pid")); err != nil {
			t.Fatal(err)
		}
		if !socket {
			if err := os.Remove(r.child.socket); err != nil {
				t.Fatal(err)
			}
		}
		next, err := Open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		if took := next.containerdPID() == pid; took != socket {
			t.Errorf("socket %v: the containerd that was there was taken: %v", socket, took)
		}
		if err := next.Close(true); err != nil {
			t.Error(err)
		}
		if running(pid) {
			t.Errorf("socket %v: it still runs", socket)
		}
	}
}

// TestContainerdDiesEarly covers an end before the agent has taken up its work, which must not be the end of the agent.
func TestContainerdDiesEarly(t *testing.T) {
	need(t)
	data, run := dirs(t)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	r, err := Open(ctx, Config{Private: true, DataDir: data, RunDir: run, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	pid := r.containerdPID()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for running(pid) {
		time.Sleep(time.Millisecond)
	}
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	for end := time.Now().Add(runtimetest.Hope); ; time.Sleep(50 * time.Millisecond) {
		if _, err = r.Containers(ctx, ""); err == nil {
			break
		}
		select {
		case err := <-done:
			t.Fatalf("the runtime gives up: %v", err)
		default:
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := r.Close(true); err != nil {
		t.Error(err)
	}
	if pids := r.child.alive(); len(pids) > 0 { // also when the end came while it was being started
		t.Errorf("containerd %v is left", pids)
	}
}
