// Package progress shows how far something is: on a terminal as a bar in one line, elsewhere as a line now and then.
package progress

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"petrel.dev/petrel/internal/cli/screen"
)

const (
	// leastFrame is the least time between two drawings on a terminal.
	leastFrame = 100 * time.Millisecond
	// leastLine is the least time between two lines elsewhere: what takes less than that says nothing.
	leastLine = 10 * time.Second
	// widest is how many characters the bar itself has at most; with less than narrowest of them there is none.
	widest, narrowest = 30, 6
)

// Unit is what is counted.
type Unit int

// Units.
const (
	Things Unit = iota
	Bytes
)

// Bar is how far one thing is. Its methods may be called by several goroutines.
type Bar struct {
	out   io.Writer
	size  func() (width, height int, ok bool) // of the terminal; not ok where there is none
	title string
	unit  Unit
	began time.Time

	mu          sync.Mutex
	done, total int64
	note        string
	parts       []Part
	below       int         // lines that the last drawing has below the bar's
	last        time.Time   // of the last drawing or line
	shown       bool        // the cursor's line on the terminal is the bar
	due         *time.Timer // draws what came too soon after the last drawing; nil when nothing did
	ended       bool
}

// Start begins one. Out is the error stream of a command: what it prints itself stays apart. A total of 0 is not known yet.
func Start(out io.Writer, title string, total int64, unit Unit) *Bar {
	b := &Bar{out: out, title: title, total: total, unit: unit, began: time.Now(), last: time.Now(), size: func() (int, int, bool) {
		width, height, ok := screen.Size(out)
		return width, height, ok && screen.Movable(out)
	}}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.draw()
	return b
}

// Set sets how far it is. What is not negative replaces what was there.
func (b *Bar) Set(done, total int64) {
	b.update(func() {
		if done >= 0 {
			b.done = done
		}
		if total >= 0 {
			b.total = total
		}
	})
}

// Add counts n more.
func (b *Bar) Add(n int64) { b.update(func() { b.done += n }) }

// Note sets what stands behind the numbers.
func (b *Bar) Note(text string) { b.update(func() { b.note = text }) }

func (b *Bar) update(change func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change()
	if b.ended {
		return
	}
	if _, _, ok := b.size(); ok {
		switch rest := leastFrame - time.Since(b.last); {
		case rest <= 0 || b.total > 0 && b.done >= b.total:
			b.draw()
		case b.due == nil:
			b.due = time.AfterFunc(rest, b.late)
		}
		return
	}
	if time.Since(b.last) >= leastLine {
		b.last = time.Now()
		fmt.Fprintf(b.out, "%s: %s\n", b.title, b.numbers())
	}
}

func (b *Bar) late() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.ended && b.due != nil {
		b.draw()
	}
}

// draw writes the bar over itself. b.mu is held.
func (b *Bar) draw() {
	width, height, ok := b.size()
	if !ok {
		return
	}
	b.last, b.shown = time.Now(), true
	if b.due != nil {
		b.due.Stop()
		b.due = nil
	}
	lines := lines(b.parts, width-1, height-2)
	text := "\r" + b.line(width-1) + b.rest()
	for _, line := range lines {
		text += "\r\n" + line
	}
	if b.below = len(lines); b.below > 0 {
		text += fmt.Sprintf("\x1b[%dA", b.below) // the cursor stays in the bar's line
	}
	_, _ = io.WriteString(b.out, text) // a terminal that is gone ends the process by SIGHUP
}

// rest returns what empties the rest of the bar's line, and the lines below that the last drawing has written.
func (b *Bar) rest() string {
	if b.below > 0 {
		return "\x1b[J"
	}
	return "\x1b[K"
}

// line returns the bar in not more than width characters.
func (b *Bar) line(width int) string {
	numbers := b.numbers()
	room := width - utf8.RuneCountInString(b.title) - utf8.RuneCountInString(numbers) - 4 // brackets and spaces
	if b.total <= 0 || room < narrowest {
		return cut(strings.TrimSpace(numbers+"  "+b.title), width) // the numbers are what changes
	}
	room = min(room, widest)
	full := int(min(b.done, b.total) * int64(room) / b.total)
	return cut(b.title+" ["+strings.Repeat("#", full)+strings.Repeat(".", room-full)+"] "+numbers, width)
}

func cut(text string, width int) string {
	if r := []rune(text); len(r) > width {
		return string(r[:max(width, 0)])
	}
	return text
}

// numbers returns how much of how much is done, and the note.
func (b *Bar) numbers() string {
	var text string
	switch {
	case b.unit == Things && b.total <= 0:
		return b.note
	case b.unit == Things:
		text = fmt.Sprintf("%d/%d", b.done, b.total)
	case b.total <= 0:
		text = megabytes(b.done) + " MB"
	default:
		text = fmt.Sprintf("%d%% of %s MB", min(b.done, b.total)*100/b.total, megabytes(b.total))
	}
	if seconds := time.Since(b.began).Seconds(); b.unit == Bytes && seconds >= 1 {
		text += ", " + megabytes(int64(float64(b.done)/seconds)) + " MB/s"
	}
	if b.note != "" {
		text += ", " + b.note
	}
	return text
}

func megabytes(n int64) string { return fmt.Sprintf("%.1f", float64(n)/1e6) }

// End takes the bar from the terminal, so that the result can stand in its place.
func (b *Bar) End() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended = true
	if b.due != nil {
		b.due.Stop()
	}
	b.clear()
}

// clear empties the line. b.mu is held.
func (b *Bar) clear() {
	if b.shown {
		fmt.Fprint(b.out, "\r"+b.rest())
		b.shown, b.below = false, 0
	}
}

// Reader counts what is read of r.
func (b *Bar) Reader(r io.Reader) io.Reader { return reader{b, r} }

type reader struct {
	bar *Bar
	in  io.Reader
}

// Read implements io.Reader.
func (r reader) Read(p []byte) (int, error) {
	n, err := r.in.Read(p)
	r.bar.Add(int64(n))
	return n, err
}

// Writer returns w for whole lines that are written while the bar is shown. They stand above it.
func (b *Bar) Writer(w io.Writer) io.Writer { return writer{b, w} }

type writer struct {
	bar *Bar
	out io.Writer
}

// Write implements io.Writer.
func (w writer) Write(p []byte) (int, error) {
	w.bar.mu.Lock()
	defer w.bar.mu.Unlock()
	again := w.bar.shown
	w.bar.clear()
	n, err := w.out.Write(p)
	if again {
		w.bar.draw()
	}
	return n, err
}
