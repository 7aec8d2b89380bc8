// Package scripttest runs tests that are written as text: timelines with everything that happens in them.
//
// A script is blocks with an empty line between them. A block is commands, one a line, then "----", then what happens, one
// event a line. Lines of commands that begin with "#" are comments. The whole trace is compared; `go test -update` writes it
// again, and the diff is to be read before it is committed.
package scripttest

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the traces of scripts anew")

// Run runs each testdata/*.txt of the test's package as a subtest. start makes what the script is about, and returns the
// function that does one command, given as its fields, and returns what happens.
func Run(t *testing.T, start func(t *testing.T) func(command []string) (events []string)) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no scripts: ", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			want := strings.TrimSpace(string(raw)) + "\n"
			got := trace(want, start(t))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("the trace has changed (-update writes it anew):\n%s", d)
			}
		})
	}
}

// trace is the script with what happens now.
func trace(script string, do func([]string) []string) string {
	var out strings.Builder
	for block := range strings.SplitSeq(script, "\n\n") {
		commands, _, _ := strings.Cut(block, "----")
		out.WriteString(strings.TrimSpace(commands) + "\n----\n")
		for line := range strings.Lines(commands) {
			if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
				continue
			}
			for _, e := range do(strings.Fields(line)) {
				out.WriteString(e + "\n")
			}
		}
		out.WriteString("\n")
	}
	return strings.TrimSpace(out.String()) + "\n"
}
