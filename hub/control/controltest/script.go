package controltest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
)

// Scripts calls run for each timeline in testdata, in a bubble of synctest of its own. A room without timelines fails.
func Scripts(t *testing.T, run func(t *testing.T, path string)) {
	t.Helper()
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no scripts")
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".txt"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { run(t, f) })
		})
	}
}

// Script runs a timeline from a text file and compares its output with that in the file:
//
//	# a comment
//	> command argument argument
//	expected output, until the next line that starts with > or #, or is empty
//
// With UPDATE_SCRIPTS=1 in the environment the file is rewritten with what was printed.
func Script(t *testing.T, path string, run func(command string, args []string) string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	skipping := false
	for _, line := range strings.Split(strings.TrimSuffix(string(b), "\n"), "\n") {
		switch {
		case strings.HasPrefix(line, ">"):
			fields := strings.Fields(line[1:])
			if len(fields) == 0 {
				t.Fatalf("%s: a line with > and no command", path)
			}
			got.WriteString(line + "\n")
			if out := strings.TrimRight(run(fields[0], fields[1:]), "\n"); out != "" {
				got.WriteString(out + "\n")
			}
			skipping = true
		case strings.HasPrefix(line, "#"), line == "":
			skipping = false
			got.WriteString(line + "\n")
		case !skipping:
			t.Fatalf("%s: output without a command: %q", path, line)
		}
	}
	if os.Getenv("UPDATE_SCRIPTS") == "1" {
		if err := os.WriteFile(path, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if d := cmp.Diff(strings.TrimRight(string(b), "\n"), strings.TrimRight(got.String(), "\n")); d != "" {
		t.Errorf("%s (-file +now):\n%s", path, d)
	}
}
