package audit

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"petrel.dev/petrel/hub/auth"
)

// TestRotation checks that a full file is replaced, that old ones go by number and by age, and that a file in use is appended to.
func TestRotation(t *testing.T) {
	dir := t.TempDir()
	f, err := openFile(Config{Path: filepath.Join(dir, "audit.log"), MaxSize: 100, MaxBackups: 3, MaxAge: 2}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"audit-2020-01-01T00-00-00.000.log", "audit-other.log", "notes.txt"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	line := []byte(strings.Repeat("x", 59) + "\n")
	for range 3 {
		if _, err := f.write(line); err != nil {
			t.Fatal(err)
		}
	}
	names := func() (out []string) {
		t.Helper()
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			out = append(out, e.Name())
		}
		return out
	}
	if got := names(); len(got) != 5 || slices.Contains(got, "audit-2020-01-01T00-00-00.000.log") { // two replaced, the file, and two of others
		t.Errorf("there are %q", got)
	}
	for range 5 {
		if _, err := f.write(line); err != nil {
			t.Fatal(err)
		}
	}
	if got := names(); len(got) != 6 {
		t.Errorf("there are %q", got)
	}
	if err := f.close(); err != nil {
		t.Fatal(err)
	}
	again, err := openFile(f.Config, slog.New(slog.DiscardHandler))
	if err != nil || again.size != 60 {
		t.Errorf("opened again with %d bytes, %v", again.size, err)
	}
	if fi, err := os.Stat(f.Path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", fi.Mode(), err)
	}
}

// TestRemovedFile checks that the log goes on in a new file when it was removed, perhaps to make room, or renamed by another program; and
// that a log behind a link stays as it is.
func TestRemovedFile(t *testing.T) {
	dir := t.TempDir()
	path, link := filepath.Join(dir, "audit.log"), filepath.Join(dir, "link.log")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	f, err := openFile(Config{Path: link}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.close() }()
	for i, step := range []struct {
		do   func() error
		want string
	}{
		{func() error { return nil }, "line 0\n"},
		{func() error { return nil }, "line 0\nline 1\n"},
		{func() error { return os.Remove(path) }, "line 2\n"},
		{func() error { return os.Rename(path, path+".1") }, "line 3\n"},
	} {
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		if _, err := f.write(fmt.Appendf(nil, "line %d\n", i)); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != step.want {
			t.Errorf("step %d: %q, %v", i, got, err)
		}
	}
}

// TestFullDisk writes to a disk that has no more room: requests go on, what is not written is counted, and what comes when there is room
// again is written whole.
func TestFullDisk(t *testing.T) {
	if os.Getuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("this test mounts a file system and needs root")
		}
		t.Skip("this test mounts a file system and needs root")
	}
	disk := t.TempDir()
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=256k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(disk, unix.MNT_DETACH) })
	others := filepath.Join(disk, "others")
	if err := os.WriteFile(others, make([]byte, 128<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	l, path := opened(t, "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Metadata, omitStages: [RequestReceived]}]\n", func(c *Config) { c.Path = filepath.Join(disk, "audit.log") })
	ask := func(n int) {
		for range n {
			w, r := get("/version")
			l.Begin(w, r, time.Now(), ada, auth.Attributes{Verb: "get", Path: "/version"}).Done(200, nil)
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	const many = 500 // of some 2 KB each
	ask(many)
	for l.sink.counts.dropped.Load() == 0 || !l.sink.room.TryAcquire(queueBytes) {
		runtime.Gosched() // until all has been tried
	}
	l.sink.room.Release(queueBytes)
	dropped := l.sink.counts.dropped.Load()
	if err := os.Remove(others); err != nil {
		t.Fatal(err)
	}
	ask(10)
	stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	whole := 0
	for line := range strings.Lines(string(text)) {
		if json.Valid([]byte(line)) {
			whole++
		}
	}
	if whole == 10 || whole != many+10-int(dropped) {
		t.Errorf("%d lines are whole, %d of %d were dropped", whole, dropped, many+10)
	}
	counted(t, l, map[string]float64{"event_total": many + 10, "error_total log": float64(dropped), "level_total Metadata": many + 10, "level_total None": 0, "level_total Request": 0, "level_total RequestResponse": 0})
	counted(t, nil, map[string]float64{"event_total": 0})
}
