// Package runtimetest holds the conformance suite that every podrun.Runtime passes, and a fake one for tests.
package runtimetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"petrel.dev/petrel/edgeagent/cruntime"
)

// Subject is a runtime under test.
type Subject struct {
	Runtime cruntime.Runtime
	// Image is present; its /bin holds sh, sleep, echo, cat, env, hostname, true and false; its user is root.
	Image string
	// ReadLog returns what a container has written so far.
	ReadLog func(t *testing.T, path string) string
}

// Run runs the suite.
func Run(t *testing.T, open func(t *testing.T) Subject) {
	s := open(t)
	for name, f := range map[string]func(*testing.T, Subject){
		"a container starts, ends and is removed":         testLife,
		"a start is idempotent":                           testStartTwice,
		"signals":                                         testSignals,
		"an unknown command is a start error":             testStartError,
		"exec":                                            testExec,
		"resources change while a container runs":         testUpdate,
		"sandboxes are idempotent and shared":             testSandbox,
		"events tell of ends":                             testEvents,
		"an image that is not there is not found":         testNoImage,
		"what is not there is not found, or gone already": testNotFound,
	} {
		t.Run(name, func(t *testing.T) { f(t, s) })
	}
}

var seq int

// pod makes a sandbox of its own for a test.
func pod(t *testing.T, s Subject) cruntime.ContainerSpec {
	t.Helper()
	seq++
	uid := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower("rt-"+filepath.Base(t.Name()))) + "-" + string(rune('a'+seq%26))
	ctx := context.Background()
	sb, err := s.Runtime.Sandbox(ctx, cruntime.SandboxSpec{PodUID: uid, Namespace: "default", Name: "pod", Hostname: "petrel-pod"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		list, err := s.Runtime.Containers(ctx, uid)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range list {
			if c.State == cruntime.Running {
				_ = s.Runtime.Signal(ctx, c.ID, syscall.SIGKILL)
				await(t, s, uid, c.ID)
			}
			if err := s.Runtime.Remove(ctx, c.ID); err != nil {
				t.Error(err)
			}
		}
		if err := s.Runtime.RemoveSandbox(ctx, uid); err != nil {
			t.Error(err)
		}
	})
	return cruntime.ContainerSpec{PodUID: uid, Namespace: "default", Pod: "pod", Name: "main", SandboxID: sb.ID, Hash: "h", Image: s.Image,
		LogPath: filepath.Join(t.TempDir(), "main", "0.log")}
}

func start(t *testing.T, s Subject, spec cruntime.ContainerSpec) string {
	t.Helper()
	id, err := s.Runtime.Start(context.Background(), spec)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func get(t *testing.T, s Subject, uid, id string) cruntime.Container {
	t.Helper()
	list, err := s.Runtime.Containers(context.Background(), uid)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range list {
		if c.ID == id {
			return c
		}
	}
	t.Fatalf("container %s is not listed", id)
	return cruntime.Container{}
}

// await waits for a container to end.
func await(t *testing.T, s Subject, uid, id string) cruntime.Container {
	t.Helper()
	for end := time.Now().Add(Hope); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if c := get(t, s, uid, id); c.State == cruntime.Exited {
			return c
		}
	}
	t.Fatalf("container %s does not end", id)
	return cruntime.Container{}
}

func testLife(t *testing.T, s Subject) {
	spec := pod(t, s)
	spec.Command, spec.Env = []string{"/bin/sh", "-c"}, []string{"GREETING=ahoy"}
	spec.Args = []string{"echo $GREETING; echo oops >&2; exit 3"}
	id := start(t, s, spec)
	c := await(t, s, spec.PodUID, id)
	if c.ExitCode != 3 || c.Lost || c.OOMKilled || c.FinishedAt.Before(c.StartedAt) || c.StartedAt.IsZero() {
		t.Errorf("ended as %+v", c)
	}
	if c.Name != "main" || c.PodUID != spec.PodUID || c.SandboxID != spec.SandboxID || c.Hash != "h" || c.Image != s.Image || !strings.Contains(c.ImageID, "sha256:") {
		t.Errorf("described as %+v", c)
	}
	if log := s.ReadLog(t, spec.LogPath); !strings.Contains(log, "ahoy\n") || !strings.Contains(log, "oops\n") {
		t.Errorf("log is %q", log)
	}
	if again := get(t, s, spec.PodUID, id); again.FinishedAt != c.FinishedAt {
		t.Errorf("the end moved from %v to %v", c.FinishedAt, again.FinishedAt)
	}
	if err := s.Runtime.Remove(context.Background(), id); err != nil {
		t.Fatal(err)
	}
	if list, _ := s.Runtime.Containers(context.Background(), spec.PodUID); len(list) != 0 {
		t.Errorf("still there: %+v", list)
	}
}

func testStartTwice(t *testing.T, s Subject) {
	spec := pod(t, s)
	spec.Command = []string{"/bin/sleep", "1000"}
	first := start(t, s, spec)
	began := get(t, s, spec.PodUID, first).StartedAt
	if second := start(t, s, spec); second != first {
		t.Errorf("a second start made %s beside %s", second, first)
	}
	if c := get(t, s, spec.PodUID, first); c.State != cruntime.Running || !c.StartedAt.Equal(began) {
		t.Errorf("after a second start: %+v", c)
	}
	if err := s.Runtime.Remove(context.Background(), first); err == nil {
		t.Error("a running container was removed")
	}
	next := spec
	next.Attempt, next.LogPath = 1, spec.LogPath+".next"
	if second := start(t, s, next); second == first {
		t.Error("another attempt has the ID of the first")
	}
}

func testSignals(t *testing.T, s Subject) {
	ctx := context.Background()
	spec := pod(t, s)
	spec.Command = []string{"/bin/sh", "-c", "trap 'exit 7' TERM; echo up; while true; do sleep 0.05; done"}
	id := start(t, s, spec)
	waitLog(t, s, spec.LogPath, "up")
	if err := s.Runtime.Signal(ctx, id, 0); err != nil {
		t.Fatal(err)
	}
	if c := await(t, s, spec.PodUID, id); c.ExitCode != 7 {
		t.Errorf("exit code %d after the stop signal, want 7", c.ExitCode)
	}
	if err := s.Runtime.Signal(ctx, id, syscall.SIGKILL); !errors.Is(err, cruntime.ErrNotFound) {
		t.Errorf("signal to an ended container: %v", err)
	}
	spec.Attempt++
	spec.Command = []string{"/bin/sleep", "1000"}
	id = start(t, s, spec)
	if err := s.Runtime.Signal(ctx, id, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if c := await(t, s, spec.PodUID, id); c.ExitCode != 137 {
		t.Errorf("exit code %d after SIGKILL, want 137", c.ExitCode)
	}
}

func waitLog(t *testing.T, s Subject, path, text string) {
	t.Helper()
	for end := time.Now().Add(Hope); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if strings.Contains(s.ReadLog(t, path), text) {
			return
		}
	}
	t.Fatalf("the log never says %q: %q", text, s.ReadLog(t, path))
}

func testStartError(t *testing.T, s Subject) {
	spec := pod(t, s)
	spec.Command = []string{"/no/such/program"}
	id, err := s.Runtime.Start(context.Background(), spec)
	if err == nil || id == "" {
		t.Fatalf("start of a missing program: id %q, error %v", id, err)
	}
	if c := get(t, s, spec.PodUID, id); c.State != cruntime.Exited || !strings.Contains(c.StartError, "/no/such/program") || c.ExitCode != 128 {
		t.Errorf("shown as %+v", c)
	}
}

func testExec(t *testing.T, s Subject) {
	ctx := context.Background()
	spec := pod(t, s)
	spec.Command, spec.Env = []string{"/bin/sleep", "1000"}, []string{"WHO=petrel"}
	id := start(t, s, spec)
	var out, errs bytes.Buffer
	code, err := s.Runtime.Exec(ctx, id, cruntime.ExecSpec{Command: []string{"/bin/sh", "-c", "cat; echo $WHO; echo bad >&2; exit 5"},
		Stdin: strings.NewReader("fed\n"), Stdout: &out, Stderr: &errs})
	if err != nil || code != 5 || out.String() != "fed\npetrel\n" || errs.String() != "bad\n" {
		t.Errorf("exec: code %d, error %v, stdout %q, stderr %q", code, err, out.String(), errs.String())
	}
	if code, err := s.Runtime.Exec(ctx, id, cruntime.ExecSpec{Command: []string{"/bin/true"}}); err != nil || code != 0 {
		t.Errorf("exec of true: %d, %v", code, err)
	}
	short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	if _, err := s.Runtime.Exec(short, id, cruntime.ExecSpec{Command: []string{"/bin/sleep", "1000"}}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("exec past its time: %v", err)
	}
	if _, err := s.Runtime.Exec(ctx, "0123", cruntime.ExecSpec{Command: []string{"/bin/true"}}); !errors.Is(err, cruntime.ErrNotFound) {
		t.Errorf("exec in no container: %v", err)
	}
}

func testUpdate(t *testing.T, s Subject) {
	ctx := context.Background()
	spec := pod(t, s)
	bounds := cruntime.Resources{CPUShares: 512, CPUQuota: 50_000, CPUPeriod: 100_000}
	larger := cruntime.Resources{CPUShares: 1024, CPUQuota: 100_000, CPUPeriod: 100_000}
	spec.Command, spec.Resources, spec.Share = []string{"/bin/sleep", "1000"}, bounds, "half"
	if err := s.Runtime.BoundPod(ctx, spec.PodUID, bounds, false); err != nil {
		t.Fatal(err)
	}
	id := start(t, s, spec)
	if got := get(t, s, spec.PodUID, id); got.Share != "half" {
		t.Errorf("share %q", got.Share)
	}
	for range 2 { // again changes nothing
		if err := s.Runtime.BoundPod(ctx, spec.PodUID, larger, true); err != nil {
			t.Error(err)
		}
		if err := s.Runtime.Update(ctx, id, larger, "whole"); err != nil {
			t.Error(err)
		}
	}
	if got := get(t, s, spec.PodUID, id); got.Share != "whole" || got.State != cruntime.Running {
		t.Errorf("%+v", got)
	}
	// A pod that is only raised keeps what it has; settled, it gets less when nothing in it has more.
	if err := s.Runtime.BoundPod(ctx, spec.PodUID, bounds, true); err != nil {
		t.Error(err)
	}
	if err := errors.Join(s.Runtime.Update(ctx, id, bounds, "half"), s.Runtime.BoundPod(ctx, spec.PodUID, bounds, false)); err != nil {
		t.Error(err)
	}
	if use, limit, err := s.Runtime.MemoryUse(ctx, spec.PodUID, id); err != nil || use < 0 || limit != 0 {
		t.Errorf("memory: %d of %d, %v", use, limit, err)
	}
	_ = s.Runtime.Signal(ctx, id, syscall.SIGKILL)
	await(t, s, spec.PodUID, id)
	if err := s.Runtime.Update(ctx, id, larger, "whole"); !errors.Is(err, cruntime.ErrNotFound) {
		t.Errorf("a container that has ended: %v", err)
	}
	if err := s.Runtime.BoundPod(ctx, "no-such-pod", larger, false); !errors.Is(err, cruntime.ErrNotFound) {
		t.Errorf("a pod that is not there: %v", err)
	}
}

func testSandbox(t *testing.T, s Subject) {
	ctx := context.Background()
	spec := pod(t, s)
	again, err := s.Runtime.Sandbox(ctx, cruntime.SandboxSpec{PodUID: spec.PodUID, Hostname: "petrel-pod"})
	if err != nil || again.ID != spec.SandboxID {
		t.Errorf("made again: %v, %v, want %s", again, err, spec.SandboxID)
	}
	note := fmt.Sprintf("/dev/shm/petrel-note-%d", os.Getpid()) // where there is no isolation the machine's own
	spec.Command = []string{"/bin/sh", "-c", "hostname; echo shared >" + note}
	id := start(t, s, spec)
	await(t, s, spec.PodUID, id)
	if log := s.ReadLog(t, spec.LogPath); !strings.Contains(log, "petrel-pod") {
		t.Errorf("host name: %q", log)
	}
	other := spec
	other.Name, other.LogPath, other.Command = "other", filepath.Join(t.TempDir(), "o.log"), []string{"/bin/sh", "-c", "cat " + note + "; rm " + note}
	id2 := start(t, s, other)
	await(t, s, spec.PodUID, id2)
	if log := s.ReadLog(t, other.LogPath); !strings.Contains(log, "shared") {
		t.Errorf("the other container's /dev/shm: %q", log)
	}
	for _, id := range []string{id, id2} {
		if err := s.Runtime.Remove(ctx, id); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Runtime.RemoveSandbox(ctx, spec.PodUID); err != nil {
		t.Fatal(err)
	}
	if err := s.Runtime.RemoveSandbox(ctx, spec.PodUID); err != nil {
		t.Errorf("removed again: %v", err)
	}
	anew, err := s.Runtime.Sandbox(ctx, cruntime.SandboxSpec{PodUID: spec.PodUID, Hostname: "petrel-pod"})
	if err != nil || anew.ID == spec.SandboxID {
		t.Errorf("made anew: %v, %v: the ID must change", anew, err)
	}
}

func testEvents(t *testing.T, s Subject) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	events := s.Runtime.Events(ctx)
	spec := pod(t, s)
	spec.Command = []string{"/bin/sh", "-c", "sleep 0.3"}
	id := start(t, s, spec)
	deadline := time.After(Hope)
	for get(t, s, spec.PodUID, id).State != cruntime.Exited {
		select {
		case uid := <-events:
			if uid != "" && uid != spec.PodUID && !strings.HasPrefix(uid, "rt-") {
				t.Errorf("event for %q", uid)
			}
		case <-deadline:
			t.Fatal("no event tells of the end")
		}
	}
	cancel()
	for range events { // is closed
	}
}

func testNoImage(t *testing.T, s Subject) {
	ctx := context.Background()
	if _, err := s.Runtime.Image(ctx, "example.test/none:1"); !errors.Is(err, cruntime.ErrNotFound) {
		t.Errorf("Image: %v", err)
	}
	if _, err := s.Runtime.Image(ctx, "Bad Name"); !errors.Is(err, cruntime.ErrConfig) {
		t.Errorf("bad name: %v", err)
	}
	img, err := s.Runtime.Image(ctx, s.Image)
	if err != nil || !strings.HasPrefix(img.Digest, "sha256:") || !strings.Contains(img.ID, "@sha256:") {
		t.Errorf("Image: %+v, %v", img, err)
	}
}

func testNotFound(t *testing.T, s Subject) {
	ctx := context.Background()
	if err := s.Runtime.Remove(ctx, "0123"); err != nil {
		t.Errorf("Remove: %v", err)
	}
	if err := s.Runtime.Signal(ctx, "0123", syscall.SIGTERM); !errors.Is(err, cruntime.ErrNotFound) {
		t.Errorf("Signal: %v", err)
	}
	if list, err := s.Runtime.Containers(ctx, "nobody"); err != nil || len(list) != 0 {
		t.Errorf("Containers: %v, %v", list, err)
	}
}
