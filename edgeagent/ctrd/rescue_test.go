package ctrd

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"petrel.dev/petrel/edgeagent/cruntime"
	"petrel.dev/petrel/edgeagent/cruntime/runtimetest"
)

// TestFullDisk checks that a container goes on, and so does its log, when a disk that was full has space again.
func TestFullDisk(t *testing.T) {
	r := private(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	ctx := context.Background()
	sb, err := r.Sandbox(ctx, cruntime.SandboxSpec{PodUID: "full", Hostname: "h"})
	if err != nil {
		t.Fatal(err)
	}
	defer removePod(t, r, "full")
	path := filepath.Join(dir, "c.log")
	if _, err := r.Start(ctx, cruntime.ContainerSpec{PodUID: "full", Name: "c", SandboxID: sb.ID, Image: testImage, LogPath: path,
		Command: []string{"sh", "-c", "i=0; while true; do i=$((i+1)); echo line $i of some length, so that a page is soon full; usleep 1000; done"}}); err != nil {
		t.Fatal(err)
	}
	lines := func() int { return strings.Count(readLog(r)(t, path), "\n") }
	wait := func(what string, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(runtimetest.Hope); !ok(); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("never: " + what)
			}
		}
	}
	wait("some lines", func() bool { return lines() > 10 })
	fill := filepath.Join(dir, "fill")
	f, err := os.Create(fill)
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	f.Close()
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	if list, err := r.Containers(ctx, "full"); err != nil || len(list) != 1 || list[0].State != cruntime.Running {
		t.Fatalf("%+v, %v", list, err)
	}
	stdout := path + ".stdout"
	wait("the shim gives up", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, task := range r.tasks {
			_, left := abandoned(filesOf(parentOf(task.pid)), stdout, task.pid, 1)
			return left
		}
		return false
	})
	if err := os.Remove(fill); err != nil {
		t.Fatal(err)
	}
	before := lines()
	r.rescue()
	wait("the log goes on", func() bool { return lines() > before+100 })
}
