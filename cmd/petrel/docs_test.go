package main

import (
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// TestReferenceIsCurrent checks that docs/cli.md is what the command tree says.
func TestReferenceIsCurrent(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the reference has the commands of a machine too, which are for Linux")
	}
	m := manual(parserForTest(t).Model)
	got, err := os.ReadFile("../../docs/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != m.Markdown() {
		t.Error("docs/cli.md is not what the commands say now; write it with `make reference`")
	}
}

// TestManPages checks that there is a page for each command that --help shows, and that each has the parts of a man page.
func TestManPages(t *testing.T) {
	app := parserForTest(t).Model
	pages := manual(app).Man()
	for _, n := range app.Leaves(true) {
		name := n.Name + ".1"
		for at := n.Parent; at != nil; at = at.Parent {
			name = at.Name + "-" + name
		}
		page := pages[name]
		for _, part := range []string{".TH PETREL", ".SH NAME\n", ".SH SYNOPSIS\n", ".SH FLAGS\n", ".SH EXIT STATUS\n"} {
			if !strings.Contains(page, part) {
				t.Errorf("%s has no %q", name, part)
			}
		}
	}
	if n := len(app.Leaves(true)); len(pages) != n+1 {
		t.Errorf("%d pages for %d commands", len(pages), n)
	}
	for _, text := range []string{`\-\-field\-selector=SELECTOR`, "of all namespaces"} {
		if !strings.Contains(strings.ToLower(pages["petrel-get.1"]), strings.ToLower(text)) {
			t.Errorf("petrel-get.1 has no %q", text)
		}
	}
	for _, hidden := range []string{"petrel-serve.1", "petrel-docs.1"} {
		if pages[hidden] != "" {
			t.Errorf("%s is of a hidden command", hidden)
		}
	}
}

func parserForTest(t *testing.T) *kong.Kong {
	t.Helper()
	parser, err := kong.New(&program{}, tree()...)
	if err != nil {
		t.Fatal(err)
	}
	return parser
}
