package ctrd

import (
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"petrel.dev/petrel/edgeagent/cruntime"
)

// TestShimSocketGoes checks that a pod leaves no socket of its shim: not even of a shim that does not remove it itself, for which the test
// puts one in its place.
func TestShimSocketGoes(t *testing.T) {
	r := private(t)
	ctx := t.Context()
	sb, err := r.Sandbox(ctx, cruntime.SandboxSpec{PodUID: "socket", Hostname: "h"})
	if err != nil {
		t.Fatal(err)
	}
	id, err := r.Start(ctx, cruntime.ContainerSpec{PodUID: "socket", Name: "c", SandboxID: sb.ID, Image: testImage, Command: []string{"/bin/sleep", "1000"},
		LogPath: filepath.Join(t.TempDir(), "c.log")})
	if err != nil {
		t.Fatal(err)
	}
	file := r.shimSocket("socket")
	if fi, err := os.Lstat(file); err != nil || fi.Mode()&os.ModeSocket == 0 {
		t.Fatalf("the shim does not listen at %s: %v", file, err)
	}
	if err := r.Signal(ctx, id, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for r.Remove(ctx, id) != nil {
		time.Sleep(20 * time.Millisecond)
	}
	_ = os.Remove(file)
	left, err := net.ListenUnix("unix", &net.UnixAddr{Name: file})
	if err != nil {
		t.Fatal(err)
	}
	left.SetUnlinkOnClose(false)
	left.Close()
	if err := r.RemoveSandbox(ctx, "socket"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left: %v", err)
	}
}

// TestOtherAgentsContainers has two agents on one containerd: neither sees the other's containers among its own, which it would end with
// its own pods.
func TestOtherAgentsContainers(t *testing.T) {
	r := private(t)
	ctx := t.Context()
	data, run := dirs(t)
	given, err := Open(ctx, Config{Address: r.address, DataDir: data, RunDir: run, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer given.Close(true)
	for of, pod := range map[*Runtime]string{r: "theirs", given: "ours"} {
		sb, err := of.Sandbox(ctx, cruntime.SandboxSpec{PodUID: pod, Hostname: "h"})
		if err != nil {
			t.Fatal(err)
		}
		defer removePod(t, of, pod)
		if _, err := of.Start(ctx, cruntime.ContainerSpec{PodUID: pod, Name: "c", SandboxID: sb.ID, Image: testImage, Command: []string{"/bin/sleep", "1000"},
			LogPath: filepath.Join(of.cfg.DataDir, "pods", pod, "c", "0.log")}); err != nil {
			t.Fatal(err)
		}
	}
	list, err := given.Containers(ctx, "")
	if err != nil || len(list) != 1 || list[0].PodUID != "ours" {
		t.Errorf("%+v, %v", list, err)
	}
}
