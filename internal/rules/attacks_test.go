package rules

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
)

var (
	testName = regexp.MustCompile(`\bTest[A-Z]\w*`)
	testFunc = regexp.MustCompile(`(?m)^func (Test[A-Z]\w*)\(t \*testing\.T\)`)
)

// allTests are the names of this module's tests.
func allTests(t *testing.T) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	for _, p := range load(t) {
		for _, file := range slices.Concat(p.TestGoFiles, p.XTestGoFiles) {
			b, err := os.ReadFile(filepath.Join(p.Dir, file))
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range testFunc.FindAllStringSubmatch(string(b), -1) {
				found[m[1]] = true
			}
		}
	}
	return found
}

// TestTestsThatDocsNameExist exists because a table that names a test which is gone claims what nobody checks. `make hostile`
// runs what docs/security.md names.
func TestTestsThatDocsNameExist(t *testing.T) {
	exist := allTests(t)
	for _, doc := range []string{"security.md", "cases.md", "performance.md", "fields.md"} {
		b, err := os.ReadFile(filepath.Join("..", "..", "docs", doc))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range testName.FindAllString(string(b), -1) {
			if !exist[name] {
				t.Errorf("docs/%s names %s, and there is no such test", doc, name)
			}
		}
	}
}
