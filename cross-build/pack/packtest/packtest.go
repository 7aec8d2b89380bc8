// Package packtest has what tests of several packages ask of their machine. Where something is missing the test is skipped, and fails where
// everything has to be there: with CI=true.
package packtest

import (
	"os"
	"os/exec"
	"testing"
)

// Program returns the path of a program that the test needs.
func Program(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		missing(t, err.Error()+": `make setup-release` installs it")
	}
	return path
}

// Root ends a test that needs root unless it is.
func Root(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		missing(t, "root is needed")
	}
}

func missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(what)
	}
	t.Skip(what)
}
