package rules

import (
	"flag"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// renew has TestHostileRunsEveryAttack write the list.
var renew = flag.Bool("update", false, "write test/hostile/beside.txt anew")

var (
	testName = regexp.MustCompile(`\bTest[A-Z]\w*`)
	testFunc = regexp.MustCompile(`(?m)^func (Test[A-Z]\w*)\(t \*testing\.T\)`)
)

// testsByName maps each test of this module to the packages that have one of that name, as `go test` wants them.
func testsByName(t *testing.T) map[string][]string {
	t.Helper()
	found := map[string][]string{}
	for _, p := range load(t) {
		for _, file := range slices.Concat(p.TestGoFiles, p.XTestGoFiles) {
			b, err := os.ReadFile(filepath.Join(p.Dir, file))
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range testFunc.FindAllStringSubmatch(string(b), -1) {
				found[m[1]] = append(found[m[1]], "."+strings.TrimPrefix(p.ImportPath, module))
			}
		}
	}
	return found
}

// TestTestsThatDocsNameExist: a table that names a test which is gone claims what nobody checks.
func TestTestsThatDocsNameExist(t *testing.T) {
	exist := testsByName(t)
	for _, doc := range []string{"security.md", "cases.md", "performance.md", "fields.md"} {
		b, err := os.ReadFile(filepath.Join("..", "..", "docs", doc))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range testName.FindAllString(string(b), -1) {
			if exist[name] == nil {
				t.Errorf("docs/%s names %s, and there is no such test", doc, name)
			}
		}
	}
}

// TestHostileRunsEveryAttack: what docs/security.md names is run by `make hostile`: all of test/hostile, and the tests of
// test/hostile/beside.txt, which are beside what they attack.
func TestHostileRunsEveryAttack(t *testing.T) {
	root := filepath.Join("..", "..")
	b, err := os.ReadFile(filepath.Join(root, "docs", "security.md"))
	if err != nil {
		t.Fatal(err)
	}
	exist, packages := testsByName(t), map[string]map[string]bool{}
	for _, name := range testName.FindAllString(string(b), -1) {
		for _, p := range exist[name] {
			if p == "./test/hostile" {
				continue
			}
			if packages[p] == nil {
				packages[p] = map[string]bool{}
			}
			packages[p][name] = true
		}
	}
	var want strings.Builder
	for _, p := range slices.Sorted(maps.Keys(packages)) {
		want.WriteString(p + " " + strings.Join(slices.Sorted(maps.Keys(packages[p])), " ") + "\n")
	}
	path := filepath.Join(root, "test", "hostile", "beside.txt")
	if *renew {
		if err := os.WriteFile(path, []byte(want.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != want.String() {
		t.Errorf("test/hostile/beside.txt is not what docs/security.md names (-update writes it): %v; want\n%s", err, want.String())
	}
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"./test/hostile/...", "test/hostile/beside.txt", "PETREL_HOSTILE=1"} {
		if !strings.Contains(string(makefile), part) {
			t.Errorf("make hostile does not use %s", part)
		}
	}
}
