package podlog

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

func noHoles(*os.File, int64) error { return unix.EOPNOTSUPP }

func held(t *testing.T, f *os.File) int64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}

// TestWithoutHoles checks that where files have no holes the spool is cut when all of it is read, and nothing is lost or
// doubled.
func TestWithoutHoles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	w := newWriter(t, path)
	p, end := newPump(t)
	p.punch = noHoles
	if err := p.Add(path); err != nil {
		t.Fatal(err)
	}
	piece := strings.Repeat(strings.Repeat("x", 99)+"\n", 3000) // more than punchEvery
	for i := range 20 {
		fmt.Fprintf(w.out, "%spiece %d\n", piece, i)
		eventually(t, "the spool is empty", func() bool {
			fi, err := w.out.Stat()
			return err == nil && fi.Size() == 0
		})
	}
	// The agent is away and comes back: the offset is of the file as it is now.
	end()
	fmt.Fprint(w.out, "away\n")
	p, end = newPump(t)
	p.punch = noHoles
	defer end()
	if err := p.Add(path); err != nil {
		t.Fatal(err)
	}
	want := ""
	for i := range 20 {
		want += fmt.Sprintf("%spiece %d\n", piece, i)
	}
	want += "away\n"
	eventually(t, "all is in the log", func() bool { return len(read(t, p, path, all)) >= len(want) })
	if got := read(t, p, path, all); got != want {
		t.Errorf("the log has %d bytes, want %d", len(got), len(want))
	}
}

// TestLongAway checks that what a container has written while no agent ran is bounded when one comes, without holes too, and
// when the log cannot be written, as on a disk that the spool has filled.
func TestLongAway(t *testing.T) {
	const most = 2 << 20
	for name, punch := range map[string]func(*os.File, int64) error{"holes": punchHole, "no holes": noHoles} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "0.log")
			w := newWriter(t, path)
			for range 20 {
				fmt.Fprint(w.out, strings.Repeat(strings.Repeat("x", 99)+"\n", 10_000))
			}
			if err := os.Mkdir(path, 0o755); err != nil { // so no log can be written
				t.Fatal(err)
			}
			p, end := newPump(t)
			defer end()
			p.MaxSize, p.MaxFiles, p.punch = most/2, 2, punch
			if err := p.Add(path); err != nil {
				t.Fatal(err)
			}
			if got := held(t, w.out); got > most+1<<20 {
				t.Errorf("the spool holds %d KiB, want at most %d", got>>10, most>>10)
			}
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			fmt.Fprint(w.out, "the end\n")
			eventually(t, "the log goes on", func() bool { return strings.HasSuffix(read(t, p, path, all), "the end\n") })
		})
	}
}

// TestPanicIsOneLogs checks that a panic over one container's output leaves the others' logs alone, and that one is read on
// when its container writes again.
func TestPanicIsOneLogs(t *testing.T) {
	dir := t.TempDir()
	bad, good := newWriter(t, filepath.Join(dir, "bad.log")), newWriter(t, filepath.Join(dir, "good.log"))
	p, end := newPump(t)
	defer end()
	var panics atomic.Int32
	p.punch = func(f *os.File, _ int64) error {
		if strings.Contains(f.Name(), "bad") && panics.Add(1) == 1 {
			panic("poison")
		}
		return nil
	}
	for _, name := range []string{"bad.log", "good.log"} {
		if err := p.Add(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	fmt.Fprint(bad.out, strings.Repeat(strings.Repeat("x", 99)+"\n", 30_000))
	eventually(t, "the panic", func() bool { return panics.Load() > 0 })
	fmt.Fprint(good.out, "hello\n")
	eventually(t, "the other log", func() bool { return read(t, p, filepath.Join(dir, "good.log"), all) == "hello\n" })
	fmt.Fprint(bad.out, "and on\n")
	eventually(t, "the log of the panic", func() bool { return strings.HasSuffix(read(t, p, filepath.Join(dir, "bad.log"), all), "x\nand on\n") })
}
