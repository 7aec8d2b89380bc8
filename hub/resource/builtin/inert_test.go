package builtin

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestInertKindsAreListed checks that docs/api.md lists the kinds on which nothing acts yet, each once, and no others.
func TestInertKindsAreListed(t *testing.T) {
	text, err := os.ReadFile("../../../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n## Served, and nothing acts on it yet\n")
	section, _, ok := strings.Cut(section, "\n## ")
	if !ok {
		t.Fatal("docs/api.md has no such section")
	}
	var listed, inert []string
	for _, row := range regexp.MustCompile(`(?m)^\| ([A-Z][\w, ]+) \|`).FindAllStringSubmatch(section, -1) {
		listed = append(listed, strings.Split(row[1], ", ")...)
	}
	for _, k := range New().All() {
		if k.Inert != "" && k.StoredAs == nil {
			inert = append(inert, k.GVK.Kind)
		}
	}
	slices.Sort(listed)
	slices.Sort(inert)
	if !slices.Equal(listed, inert) {
		t.Errorf("docs/api.md lists\n%q\nand these are inert:\n%q", listed, inert)
	}
}
