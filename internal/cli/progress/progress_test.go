package progress

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// on returns a bar on a terminal of the width; 0 is none.
func on(out io.Writer, width *int, title string, total int64, unit Unit) *Bar {
	b := Start(out, title, total, unit)
	b.size = func() (int, int, bool) { return *width, 6, *width > 0 }
	return b
}

func TestTerminal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		width := 60
		b := on(&out, &width, "importing web.tar", 4_000_000, Bytes)
		expect := func(want string) {
			t.Helper()
			if out.String() != want {
				t.Errorf("%q, want %q", out.String(), want)
			}
			out.Reset()
		}
		r := b.Reader(io.LimitReader(zeros{}, 4_000_000))
		read := func(n int64) {
			if _, err := io.CopyN(io.Discard, r, n); err != nil {
				t.Error(err)
			}
		}
		read(1_000_000)
		expect("") // too early for a picture
		time.Sleep(leastFrame)
		synctest.Wait()
		expect("\rimporting web.tar [######...................] 25% of 4.0 MB\x1b[K")
		time.Sleep(2*time.Second - leastFrame)
		read(1_000_000)
		got := out.String()
		if n := strings.Count(got, "\r"); n != 1 || !strings.HasPrefix(got, "\rimporting web.tar [##") || !strings.HasSuffix(got, "% of 4.0 MB, 0.5 MB/s\x1b[K") {
			t.Errorf("%d pictures: %q", n, got)
		}
		out.Reset()

		// A line stands above the bar, which is drawn again below it.
		if _, err := io.WriteString(b.Writer(&out), "a line\n"); err != nil {
			t.Error(err)
		}
		expect("\r\x1b[Ka line\n\rimporting web.tar [#######........] 50% of 4.0 MB, 1.0 MB/s\x1b[K")
		width = 20
		time.Sleep(2 * time.Second)
		b.Set(3_000_000, -1)
		expect("\r75% of 4.0 MB, 0.8 \x1b[K")
		b.Set(4_000_000, -1) // the end is drawn at once
		expect("\r100% of 4.0 MB, 1.0\x1b[K")
		b.End()
		expect("\r\x1b[K")
		b.Set(1, 1)
		b.End()
		expect("")
	})
}

func TestThings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		width := 40
		b := on(&out, &width, "drain", 0, Things)
		b.Set(-1, 0)
		time.Sleep(time.Second)
		b.Note("waiting")
		time.Sleep(time.Second)
		b.Set(3, 4)
		if want := "\rdrain\x1b[K\rwaiting  drain\x1b[K\rdrain [#############.....] 3/4, waiting\x1b[K"; out.String() != want {
			t.Errorf("%q, want %q", out.String(), want)
		}
	})
}

// TestBelow checks the lines below a bar: as many as fit, over those before, and gone with the bar.
func TestBelow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		width := 50
		b := on(&out, &width, "web", 4, Things)
		step := func(want string, change func()) {
			t.Helper()
			time.Sleep(time.Second)
			out.Reset()
			if change(); out.String() != want {
				t.Errorf("%q, want %q", out.String(), want)
			}
		}
		const bar = "\rweb [..............................] 0/4"
		coming := Part{Title: "pi-1 app:1", Done: 10_000_000, Total: 40_000_000}
		step(bar+"\x1b[K\r\n  pi-1 app:1 [####...............] 25% of 40.0 MB\r\n  pi-2 app:1: asking\x1b[2A",
			func() { b.Below([]Part{coming, {Title: "pi-2 app:1", Note: "asking"}}) })
		step("\r\x1b[Ja line\n"+bar+"\x1b[K\r\n  pi-1 app:1 [####...............] 25% of 40.0 MB\r\n  pi-2 app:1: asking\x1b[2A",
			func() { _, _ = io.WriteString(b.Writer(&out), "a line\n") })
		step(bar+"\x1b[J\r\n  a: x\r\n  a: x\r\n  a: x\r\n  a: x\x1b[4A",
			func() {
				b.Below([]Part{{Title: "a", Note: "x"}, {Title: "a", Note: "x"}, {Title: "a", Note: "x"}, {Title: "a", Note: "x"}, {Title: "fifth"}})
			})
		step(bar+"\x1b[J", func() { b.Below(nil) })
		step(bar+"\x1b[K\r\n  a: x\x1b[1A", func() { b.Below([]Part{{Title: "a", Note: "x"}}) })
		step("\r\x1b[J", b.End)
		step("", func() { b.Below([]Part{coming}) })
	})
}

// TestNoTerminal checks that a file or a pipe gets a line now and then, and nothing of what is done soon.
func TestNoTerminal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		width := 0
		b := on(&out, &width, "backing up", 2_000_000, Bytes)
		for range 20 {
			time.Sleep(time.Second)
			b.Add(100_000)
		}
		b.End()
		if want := "backing up: 50% of 2.0 MB, 0.1 MB/s\nbacking up: 100% of 2.0 MB, 0.1 MB/s\n"; out.String() != want {
			t.Errorf("%q, want %q", out.String(), want)
		}
	})
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }
