// Package screen knows what the writer of a command is: a terminal, how large, whether its cursor moves and whether it shows colours.
// What is drawn in place of what was there before goes through Redraw.
package screen

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// Size returns the size of the terminal that w is, in characters, if it is one. Ask before each drawing: people resize windows.
func Size(w io.Writer) (width, height int, ok bool) {
	f, isFile := w.(*os.File)
	if !isFile || !term.IsTerminal(int(f.Fd())) {
		return 0, 0, false
	}
	width, height, err := term.GetSize(int(f.Fd()))
	return width, height, err == nil && width > 0 && height > 0
}

// Movable reports whether w is a terminal on which something can be drawn in place of what was there before.
func Movable(w io.Writer) bool {
	_, _, ok := Size(w)
	return ok && os.Getenv("TERM") != "dumb"
}

// Interactive reports whether in is a terminal, where a person can answer a question.
func Interactive(in io.Reader) bool {
	f, isFile := in.(*os.File)
	return isFile && term.IsTerminal(int(f.Fd()))
}

// Colours reports whether to write colours to w. when is the flag --color: always, never, or else only to a terminal that shows them,
// unless $NO_COLOR (https://no-color.org) is set.
func Colours(w io.Writer, when string) bool {
	switch when {
	case "always":
		return true
	case "never":
		return false
	}
	return os.Getenv("NO_COLOR") == "" && Movable(w)
}

// Ask writes a question and reads the answer, which is no unless it is y or yes. It ends with ctx; the read then stays behind, as one
// of a terminal cannot be ended.
func Ask(ctx context.Context, in io.Reader, out io.Writer, question string) (yes bool, err error) {
	fmt.Fprintf(out, "%s [y/N] ", question)
	answer := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(in).ReadString('\n') // what came until an error is the answer
		answer <- strings.ToLower(strings.TrimSpace(line))
	}()
	select {
	case <-ctx.Done():
		fmt.Fprintln(out)
		return false, context.Cause(ctx)
	case a := <-answer:
		return a == "y" || a == "yes", nil
	}
}

// Colours of ECMA-48; Plain ends one.
const (
	Red    = "\x1b[31m"
	Green  = "\x1b[32m"
	Yellow = "\x1b[33m"
	Blue   = "\x1b[34m"
	Violet = "\x1b[35m"
	Cyan   = "\x1b[36m"
	Plain  = "\x1b[0m"
)
