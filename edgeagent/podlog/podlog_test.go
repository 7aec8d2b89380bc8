package podlog

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// writer is a shim: it appends to a spool, whatever the pump does.
type writer struct{ out, errs *os.File }

func newWriter(t *testing.T, path string) writer {
	t.Helper()
	if err := Prepare(path); err != nil {
		t.Fatal(err)
	}
	open := func(p string) *os.File {
		f, err := os.OpenFile(p, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	o, e := SpoolPaths(path)
	return writer{open(o), open(e)}
}

func newPump(t *testing.T) (*Pump, func()) {
	t.Helper()
	p, err := NewPump(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	return p, func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		p.notify.Close()
	}
}

func read(t *testing.T, p *Pump, path string, o Options) string {
	t.Helper()
	var b strings.Builder
	if err := p.Read(context.Background(), path, o, &b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("never: " + what)
		}
	}
}

var all = Options{Tail: -1}

func TestFormat(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	w := newWriter(t, path)
	p, end := newPump(t)
	defer end()
	fmt.Fprint(w.out, "one\ntwo\n\nunfinished")
	fmt.Fprint(w.errs, strings.Repeat("x", MaxLine+5)+"\n")
	if err := p.Add(path); err != nil {
		t.Fatal(err)
	}
	if got := read(t, p, path, all); strings.Contains(got, "unfinished") || !strings.HasPrefix(got, "one\ntwo\n\n") {
		t.Errorf("log before the end: %.60q", got)
	}
	p.Finish(path)
	got := read(t, p, path, all)
	if want := "one\ntwo\n\n" + strings.Repeat("x", MaxLine+5) + "\n"; !strings.HasPrefix(got, "one\ntwo\n\n") || len(got) != len(want)+len("unfinished") {
		t.Errorf("log: %d bytes", len(got))
	}
	raw, _ := os.ReadFile(path)
	first, _, _ := strings.Cut(string(raw), "\n")
	f := strings.Fields(first)
	if len(f) != 4 || f[1] != "stdout" || f[2] != "F" || f[3] != "one" {
		t.Errorf("first line %q", first)
	}
	if _, err := time.Parse(time.RFC3339Nano, f[0]); err != nil {
		t.Error(err)
	}
	if !strings.Contains(string(raw), " stderr P x") || !strings.Contains(string(raw), " stderr F xxxxx\n") {
		t.Error("the long line is not cut in two")
	}
	left, _ := filepath.Glob(path + ".*")
	if len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestOptions(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	w := newWriter(t, path)
	p, end := newPump(t)
	defer end()
	clock := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	p.now = func() time.Time { return clock }
	if err := p.Add(path); err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(w.out, "a\nb\n")
	eventually(t, "b", func() bool { return read(t, p, path, all) == "a\nb\n" })
	p.mu.Lock()
	clock = clock.Add(time.Minute)
	p.mu.Unlock()
	fmt.Fprint(w.errs, "c\n")
	eventually(t, "c", func() bool { return read(t, p, path, all) == "a\nb\nc\n" })
	for _, c := range []struct {
		o    Options
		want string
	}{
		{Options{Tail: 0}, ""},
		{Options{Tail: 2}, "b\nc\n"},
		{Options{Tail: 9}, "a\nb\nc\n"},
		{Options{Tail: -1, Limit: 3}, "a\nb"},
		{Options{Tail: -1, Limit: 100}, "a\nb\nc\n"},
		{Options{Tail: -1, Stream: "stderr"}, "c\n"},
		{Options{Tail: 1, Stream: "stdout"}, "b\n"},
		{Options{Tail: -1, Since: clock.Add(-time.Second)}, "c\n"},
		{Options{Tail: 1, Timestamps: true}, "2026-01-01T00:01:00Z c\n"},
	} {
		if got := read(t, p, path, c.o); got != c.want {
			t.Errorf("%+v: %q, want %q", c.o, got, c.want)
		}
	}
	if got := Tail(path, 2, 3); got != "\nc\n" {
		t.Errorf("Tail: %q", got)
	}
}

// TestRotation checks that many lines go through small files; a follower sees every one, and the spool does not grow.
func TestRotationAndFollow(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	w := newWriter(t, path)
	p, end := newPump(t)
	defer end()
	p.MaxSize, p.MaxFiles = 256<<10, 3
	if err := p.Add(path); err != nil {
		t.Fatal(err)
	}
	followed := make(chan string, 1)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	started := make(chan struct{})
	go func() {
		var b strings.Builder
		close(started)
		_ = p.Read(ctx, path, Options{Tail: -1, Follow: true}, &b)
		followed <- b.String()
	}()
	<-started
	eventually(t, "a follower", func() bool { p.mu.Lock(); defer p.mu.Unlock(); return len(p.logs[path].wakes) == 1 })
	const lines = 40000
	for i := range lines {
		fmt.Fprintf(w.out, "line %d\n", i)
		if i%2000 == 0 {
			time.Sleep(2 * time.Millisecond)
		}
	}
	eventually(t, "the last line", func() bool {
		return strings.HasSuffix(read(t, p, path, Options{Tail: 1}), fmt.Sprintf("line %d\n", lines-1))
	})
	o, _ := SpoolPaths(path)
	var st unix.Stat_t
	if err := unix.Stat(o, &st); err != nil {
		t.Fatal(err)
	}
	if st.Blocks*512 > punchEvery+128<<10 {
		t.Errorf("the spool takes %d bytes of %d", st.Blocks*512, st.Size)
	}
	p.Finish(path)
	if got := <-followed; strings.Count(got, "\n") != lines {
		t.Errorf("the follower saw %d of %d lines", strings.Count(got, "\n"), lines)
	}
	if n := len(openFiles(path, nil)); n < 2 || n > 3 {
		t.Errorf("%d files are kept, want at most 3", n)
	}
	got := read(t, p, path, all)
	if !strings.HasSuffix(got, fmt.Sprintf("line %d\n", lines-1)) || strings.HasPrefix(got, "line 0\n") {
		t.Errorf("what is kept: %.20q…", got)
	}
}

// TestAgentAway checks that what is written while no agent runs is in the log afterwards, once.
func TestAgentAway(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	w := newWriter(t, path)
	p, end := newPump(t)
	if err := p.Add(path); err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(w.out, "before\nhal")
	eventually(t, "before", func() bool { return read(t, p, path, all) == "before\n" })
	end()
	fmt.Fprint(w.out, "f\naway\n")
	p, end = newPump(t)
	defer end()
	if err := p.Add(path); err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(w.out, "after\n")
	eventually(t, "all", func() bool { return read(t, p, path, all) == "before\nhalf\naway\nafter\n" })
	// A container that has ended while no agent ran is only finished.
	other := filepath.Join(t.TempDir(), "1.log")
	fmt.Fprint(newWriter(t, other).errs, "last words")
	p.Finish(other)
	if got := read(t, p, other, all); got != "last words" {
		t.Errorf("got %q", got)
	}
}

// TestFlood checks that a container that never stops writing, faster than the pump can read, holds up nobody else, and its
// spool does not take the disk.
func TestFlood(t *testing.T) {
	dir := t.TempDir()
	p, end := newPump(t)
	defer end()
	p.MaxSize, p.MaxFiles = 1<<20, 2
	flood := filepath.Join(dir, "0.log")
	w := newWriter(t, flood)
	if err := p.Add(flood); err != nil {
		t.Fatal(err)
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for y, n := []byte(strings.Repeat("y\n", 32<<10)), 0; n < 1<<30; n += len(y) {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := w.out.Write(y); err != nil {
				return
			}
			time.Sleep(time.Millisecond) // 64 MB/s are enough
		}
	}()
	eventually(t, "a good deal is written", func() bool {
		fi, err := w.out.Stat()
		return err == nil && fi.Size() > 16<<20
	})
	quiet := filepath.Join(dir, "1.log")
	fmt.Fprint(newWriter(t, quiet).out, "hello\n")
	added := make(chan error, 1)
	go func() { added <- p.Add(quiet) }()
	select {
	case err := <-added:
		if err != nil {
			t.Error(err)
		}
	case <-stopped: // a gigabyte has been written meanwhile
		t.Error("a flood holds up the start of another container")
		<-added
	}
	if got := read(t, p, quiet, all); got != "hello\n" {
		t.Errorf("the other log is %q", got)
	}
	close(stop)
	<-stopped
	p.Finish(flood)
	var st unix.Stat_t
	if err := unix.Fstat(int(w.out.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	if held := st.Blocks * 512; held > 64<<20 {
		t.Errorf("the spool holds %d MiB", held>>20)
	}
	if got := read(t, p, flood, Options{Tail: 1}); got != "y\n" {
		t.Errorf("the flood's log ends with %q", got)
	}
}

func TestSubscribe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	w := newWriter(t, path)
	p, end := newPump(t)
	defer end()
	fmt.Fprint(w.out, "old\n")
	if err := p.Add(path); err != nil {
		t.Fatal(err)
	}
	c, stop, ok := p.Subscribe(path)
	if !ok {
		t.Fatal("not written")
	}
	defer stop()
	fmt.Fprint(w.out, "prompt> ") // without an end of line
	if got := <-c; string(got.Data) != "prompt> " || got.Stderr {
		t.Errorf("got %q", got.Data)
	}
	fmt.Fprint(w.out, "x\n")
	if got := <-c; string(got.Data) != "x\n" {
		t.Errorf("got %q", got.Data)
	}
	p.Finish(path)
	if _, open := <-c; open {
		t.Error("goes on after the end")
	}
	if _, _, ok := p.Subscribe(path); ok {
		t.Error("an ended log can be subscribed to")
	}
}

func TestDamagedLinesAreSkipped(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	text := "2026-01-01T00:00:00Z stdout F good\n\x00\x00\x00\n2026 nonsense\n2026-01-01T00:00:01Z stdout F also good\n2026-01-01T00:00:02Z stdout F cut"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := read(t, &Pump{}, path, all); got != "good\nalso good\n" {
		t.Errorf("got %q", got)
	}
}
