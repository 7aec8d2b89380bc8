package rules

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const doorsFile = "docs/dependencies.md"

// door is what a row of the table in docs/dependencies.md says of a module.
type door struct {
	row    int // of the table
	module string
	to     []string // packages, relative to the module, that may import it, or that may not
	except bool     // to lists those that may not
}

// open reports whether the package may import the module.
func (d door) open(pkg string) bool {
	in := slices.ContainsFunc(d.to, func(to string) bool { return below(pkg, to) })
	return len(d.to) == 0 || in != d.except
}

var quoted = regexp.MustCompile("`([^` ]+)`")

func names(cell string) (out []string) {
	for _, m := range quoted.FindAllStringSubmatch(cell, -1) {
		out = append(out, m[1])
	}
	return out
}

// parseDoors reads the rows of the table, the modules with the longest names first.
func parseDoors(text string) (doors []door) {
	row := 0
	for line := range strings.Lines(text) {
		row++
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if !strings.HasPrefix(line, "|") || len(cells) != 3 {
			continue
		}
		// What is in brackets is about the module: "(with one `replace` line ...)".
		first, _, _ := strings.Cut(cells[0], "(")
		for _, m := range names(first) {
			doors = append(doors, door{row, m, names(cells[2]), strings.HasPrefix(strings.TrimSpace(cells[2]), "everywhere but")})
		}
	}
	slices.SortFunc(doors, func(a, b door) int { return len(b.module) - len(a.module) })
	return doors
}

// of returns the door of an imported package's module.
func of(doors []door, imp string) (door, bool) {
	i := slices.IndexFunc(doors, func(d door) bool { return below(imp, d.module) })
	if i < 0 {
		return door{}, false
	}
	return doors[i], true
}

// TestDoors keeps each library behind the packages where its traps are known and written down.
func TestDoors(t *testing.T) {
	b, err := os.ReadFile("../../" + doorsFile)
	if err != nil {
		t.Fatal(err)
	}
	doors := parseDoors(string(b))
	if len(doors) < 40 {
		t.Fatalf("only %d modules were read from %s", len(doors), doorsFile)
	}
	type entrance struct {
		row int
		to  string
	}
	used := map[entrance]bool{}
	for _, p := range load(t) {
		pkg := strings.TrimPrefix(p.ImportPath, module+"/")
		for _, imp := range p.Imports {
			if first, _, _ := strings.Cut(imp, "/"); !strings.Contains(first, ".") || below(imp, module) {
				continue // the standard library, and our own
			}
			d, ok := of(doors, imp)
			if !ok {
				t.Errorf("%s imports %s, whose module has no row in %s: add one with the reason and the door, or do without it", pkg, imp, doorsFile)
				continue
			}
			if !d.open(pkg) {
				t.Errorf("%s imports %s: the door of %s is %s; ask the package there, or add %s to its row in %s with the reason",
					pkg, imp, d.module, strings.Join(d.to, ", "), pkg, doorsFile)
			}
			for _, to := range d.to {
				if below(pkg, to) {
					used[entrance{d.row, to}] = true
				}
			}
		}
	}
	for _, d := range doors {
		for _, to := range d.to {
			if !d.except && !used[entrance{d.row, to}] {
				t.Errorf("%s names %s as a door of %s, but nothing there imports it: take it from the row", doorsFile, to, d.module)
			}
		}
	}
}

// TestDoorsAreRead checks that the table's forms mean what its page says.
func TestDoorsAreRead(t *testing.T) {
	doors := parseDoors(`
| module | why | door |
|---|---|---|
| ` + "`a.io/x`, `a.io/y` (with one `replace` line)" + ` | why | everywhere but ` + "`store`" + ` |
| ` + "`a.io/x/v2`" + ` | why | ` + "`hub/resource`, `cmd`" + ` |
| tests only: ` + "`b.io/t`" + ` | why | |
`)
	for _, c := range []struct {
		imp, pkg   string
		known, may bool
	}{
		{"a.io/x/sub", "hub", true, true}, {"a.io/x", "store/test", true, false}, {"a.io/y", "store", true, false},
		{"a.io/x/v2/sub", "hub", true, false}, {"a.io/x/v2", "hub/resource/openapi", true, true}, {"a.io/x/v2", "hub/resources", true, false},
		{"a.io/xx", "hub", false, true}, {"replace", "hub", false, true}, {"b.io/t", "anything", true, true},
	} {
		d, known := of(doors, c.imp)
		if known != c.known || d.open(c.pkg) != c.may {
			t.Errorf("%s in %s: known %v, may %v", c.imp, c.pkg, known, d.open(c.pkg))
		}
	}
}
