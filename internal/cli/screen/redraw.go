package screen

import (
	"io"
	"strings"
)

// Control sequences that every terminal of the last decades knows (ECMA-48).
const (
	home      = "\x1b[H"
	clearLine = "\x1b[K" // from the cursor to the end of the line
	clearRest = "\x1b[J" // from the cursor to the end of the screen
	clearAll  = "\x1b[2J"
)

// Redraw writes a text over the one before, in one write and without clearing first, so that nothing flickers. What does not fit on the
// screen is cut: a line that wraps, or a screen that scrolls, would move what is to stay in place.
func Redraw(w io.Writer, text string, width, height int, first bool) {
	var b strings.Builder
	if first {
		b.WriteString(clearAll)
	}
	b.WriteString(home)
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	for i, line := range lines[:min(len(lines), max(height-1, 1))] {
		if r := []rune(line); len(r) > width {
			line = string(r[:width])
		}
		if i > 0 {
			b.WriteString("\r\n")
		}
		b.WriteString(line + clearLine)
	}
	b.WriteString("\r\n" + clearRest)
	_, _ = io.WriteString(w, b.String()) // a terminal that is gone ends the process by SIGHUP
}
