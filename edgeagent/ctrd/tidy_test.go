package ctrd

import (
	"errors"
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

// TestRemoveEmpty leaves what another containerd, or another namespace of the same, has in the directories that all share.
func TestRemoveEmpty(t *testing.T) {
	tests := []struct {
		name       string
		dirs       []string
		left, gone string
	}{
		{"alone", []string{"runc/petrel", "s"}, "", "."},
		{"a container of its own", []string{"runc/petrel/c1", "s"}, "runc/petrel/c1", "s"},
		{"another namespace", []string{"runc/petrel", "runc/k8s.io/c1"}, "runc/k8s.io/c1", "runc/petrel"},
		{"another containerd", []string{"runc/petrel", "io.containerd.grpc.v1.cri"}, "io.containerd.grpc.v1.cri", "runc"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			root := filepath.Join(t.TempDir(), "containerd")
			for _, d := range tt.dirs {
				if err := os.MkdirAll(filepath.Join(root, d), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			for range 2 { // the second time there is nothing to do
				if err := removeEmpty(root, "petrel"); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := os.Stat(filepath.Join(root, tt.gone)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s is left: %v", tt.gone, err)
			}
			if _, err := os.Stat(filepath.Join(root, tt.left)); tt.left != "" && err != nil {
				t.Error(err)
			}
		})
	}
}
