package podlog

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestUnfinishedLastLine checks that a container that ends without a newline has not written one, for every reader of its log.
func TestUnfinishedLastLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	w := newWriter(t, path)
	p, end := newPump(t)
	defer end()
	if err := p.Add(path); err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(w.out, "one\ntwo\nDONE")
	p.Finish(path)
	if got := read(t, p, path, all); got != "one\ntwo\nDONE" {
		t.Errorf("log: %q", got)
	}
	if got := Tail(path, 80, 2048); got != "one\ntwo\nDONE" {
		t.Errorf("Tail: %q", got)
	}
	for n, want := range []string{"", "DONE", "two\nDONE", "one\ntwo\nDONE"} {
		if got := read(t, p, path, Options{Tail: int64(n)}); got != want {
			t.Errorf("tail %d: %q, want %q", n, got, want)
		}
	}
}

// growing is a log's reader while whose reading the container goes on writing.
type growing struct {
	strings.Builder
	log *os.File
}

func (g *growing) Write(b []byte) (int, error) {
	if _, err := g.log.WriteString("2026-01-01T00:00:09Z stdout F later\n"); err != nil {
		return 0, err
	}
	return g.Builder.Write(b)
}

// TestTailOfAGrowingLog checks that a reader that asks for the last line gets one line, however fast the container writes.
func TestTailOfAGrowingLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	if err := os.WriteFile(path, []byte("2026-01-01T00:00:00Z stdout F one\n2026-01-01T00:00:01Z stdout F two\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	out := &growing{log: f}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if err := (&Pump{}).Read(ctx, path, Options{Tail: 1}, &bounded{growing: out, left: 5, stop: cancel}); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); got != "two\n" {
		t.Errorf("the last line: %q", got)
	}
}

// bounded ends a reading that would go on for as long as the log grows.
type bounded struct {
	*growing
	left int
	stop func()
}

func (b *bounded) Write(p []byte) (int, error) {
	if b.left--; b.left == 0 {
		b.stop()
	}
	return b.growing.Write(p)
}
