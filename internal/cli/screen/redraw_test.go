package screen

import (
	"bytes"
	"testing"
)

func TestRedraw(t *testing.T) {
	var out bytes.Buffer
	Redraw(&out, "NAME   CPU\nw\u00fcb    1m\nthird\n", 6, 3, true)
	if want := "\x1b[2J\x1b[HNAME  \x1b[K\r\nw\u00fcb   \x1b[K\r\n\x1b[J"; out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
	out.Reset()
	Redraw(&out, "x\n", 80, 24, false)
	if want := "\x1b[Hx\x1b[K\r\n\x1b[J"; out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
}
