package storage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// hostile makes what a container may leave in its volume.
func hostile(t *testing.T, dir string) {
	t.Helper()
	if err := errors.Join(
		os.Mkdir(filepath.Join(dir, "sub"), 0o755),
		os.WriteFile(filepath.Join(dir, "sub", "f"), make([]byte, 1<<20), 0o600),
		os.Link(filepath.Join(dir, "sub", "f"), filepath.Join(dir, "again")),
		os.Symlink("/", filepath.Join(dir, "root")),
		os.Symlink("..", filepath.Join(dir, "up")),
		os.Symlink(".", filepath.Join(dir, "sub", "self")),
		os.Symlink("no such", filepath.Join(dir, "broken")),
		unix.Mkfifo(filepath.Join(dir, "pipe"), 0o666),
	); err != nil {
		t.Fatal(err)
	}
	sparse, err := os.Create(filepath.Join(dir, "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	defer sparse.Close()
	if err := sparse.Truncate(1 << 40); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: filepath.Join(dir, "s")}); err != nil {
		t.Fatal(err)
	}
}

// TestWalk checks that links lead nowhere, a pipe holds nobody, a file with two names counts once, a hole counts nothing.
func TestWalk(t *testing.T) {
	dir, err := os.MkdirTemp("", "w") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	hostile(t, dir)
	u, err := Walk(t.Context(), dir)
	if err != nil || u.Bytes < 1<<20 || u.Bytes > 1<<20+128<<10 || u.Files != 10 {
		t.Errorf("%+v, %v", u, err)
	}
	if u, err := Walk(t.Context(), filepath.Join(dir, "none")); err != nil || u != (Usage{}) {
		t.Errorf("what is not there: %+v, %v", u, err)
	}
	for _, name := range []string{"root", "pipe", "sub/f"} {
		if u, err := Walk(t.Context(), filepath.Join(dir, name)); err == nil {
			t.Errorf("%s: %+v", name, u)
		}
	}
}

// TestWalkOneDisk checks that what is mounted in the directory does not count.
func TestWalkOneDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root")
		}
		t.Skip("needs root")
	}
	dir := t.TempDir()
	mnt := filepath.Join(dir, "mnt")
	if err := errors.Join(os.Mkdir(mnt, 0o755), unix.Mount("tmpfs", mnt, "tmpfs", 0, "size=8m")); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(mnt, unix.MNT_DETACH)
	if err := os.WriteFile(filepath.Join(mnt, "f"), make([]byte, 4<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if u, err := Walk(t.Context(), dir); err != nil || u.Bytes > 1<<20 {
		t.Errorf("%+v, %v", u, err)
	}
}

// TestWalkBounds checks that depth is bounded, no descriptor is left open, and a walk ends with its context.
func TestWalkBounds(t *testing.T) {
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	for range maxDepth + 10 {
		if err := root.Mkdir("d", 0o755); err != nil {
			t.Fatal(err)
		}
		next, err := root.OpenRoot("d")
		root.Close()
		if err != nil {
			t.Fatal(err)
		}
		root = next
	}
	root.Close()
	before, _ := os.ReadDir("/proc/self/fd")
	if _, err := Walk(t.Context(), dir); !errors.Is(err, ErrUnmeasurable) {
		t.Errorf("too deep: %v", err)
	}
	if after, _ := os.ReadDir("/proc/self/fd"); len(after) > len(before) {
		t.Errorf("%d descriptors, %d before", len(after), len(before))
	}
	many := t.TempDir()
	for i := range breath + 10 {
		if err := os.WriteFile(filepath.Join(many, fmt.Sprint(i)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Walk(ctx, many); !errors.Is(err, context.Canceled) {
		t.Errorf("a walk that nobody waits for: %v", err)
	}
}
