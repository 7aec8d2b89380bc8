package ctrd

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"petrel.dev/petrel/edgeagent/cruntime"
	"petrel.dev/petrel/edgeagent/cruntime/runtimetest"
)

// TestRecursiveReadOnly checks that what is mounted below a volume's directory is read-only too, where a container's mount says
// so.
func TestRecursiveReadOnly(t *testing.T) {
	r := private(t)
	if !r.Host(t.Context()).RecursiveReadOnly {
		t.Skip("this kernel, or this runc, cannot do it")
	}
	dir := t.TempDir()
	below := filepath.Join(dir, "below")
	if err := unix.Mkdir(below, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", below, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(below, unix.MNT_DETACH)
	sb, err := r.Sandbox(t.Context(), cruntime.SandboxSpec{PodUID: "ro", Hostname: "h"})
	if err != nil {
		t.Fatal(err)
	}
	defer removePod(t, r, "ro")
	for recursive, want := range map[bool]string{false: "top no below yes", true: "top no below no"} {
		log := filepath.Join(t.TempDir(), "c.log")
		spec := cruntime.ContainerSpec{PodUID: "ro", Name: fmt.Sprint("c-", recursive), SandboxID: sb.ID, Image: testImage, LogPath: log,
			Command: []string{"/bin/sh", "-c", "touch /v/x 2>/dev/null && echo top yes below || echo -n 'top no below '; touch /v/below/x 2>/dev/null && echo yes || echo no"},
			Mounts:  []cruntime.Mount{{Source: dir, Target: "/v", ReadOnly: true, Recursive: recursive}}}
		if _, err := r.Start(t.Context(), spec); err != nil {
			t.Fatal(err)
		}
		got := ""
		for end := time.Now().Add(runtimetest.Hope); !strings.HasSuffix(got, "\n") && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			if list, err := r.Containers(context.Background(), "ro"); err != nil || len(list) == 0 {
				t.Fatal(err)
			}
			got = readLog(r)(t, log)
		}
		if got != want+"\n" {
			t.Errorf("recursive %v: %q, want %q", recursive, got, want)
		}
	}
}
