package rules

import (
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

// importTable is testdata/imports.txt.
type importTable struct {
	allowed map[string][]string // package → its direct internal imports, all relative to the module
	walls   []wall
	private []private
}

// wall is a direction in which nothing may be imported, however the rest of the table is changed.
type wall struct{ from, to, reason string }

// private is a package that only a few may import, however the rest of the table is changed.
type private struct {
	to     string
	users  []string
	reason string
}

// refuses reports whether p may not import imp.
func (r private) refuses(p, imp string) bool {
	return below(imp, r.to) && !below(p, r.to) && !slices.Contains(r.users, p)
}

const importsFile = "testdata/imports.txt"

func readImports(t *testing.T) importTable {
	t.Helper()
	b, err := os.ReadFile(importsFile)
	if err != nil {
		t.Fatal(err)
	}
	table := importTable{allowed: map[string][]string{}}
	for line := range strings.Lines(strings.ReplaceAll(string(b), "\\\n", " ")) {
		line, _, _ = strings.Cut(strings.TrimSpace(line), "#")
		if line == "" {
			continue
		}
		head, rest, ok := strings.Cut(line, ":")
		if only, isPrivate := strings.CutPrefix(head, "only "); isPrivate {
			users, to, arrow := strings.Cut(only, " -> ")
			if !ok || !arrow || strings.TrimSpace(rest) == "" {
				t.Fatalf("%s: %q is not \"only A B -> C: reason\"", importsFile, line)
			}
			table.private = append(table.private, private{to, strings.Fields(users), strings.TrimSpace(rest)})
			continue
		}
		if never, isWall := strings.CutPrefix(head, "never "); isWall {
			from, to, arrow := strings.Cut(never, " -> ")
			if !ok || !arrow || strings.TrimSpace(rest) == "" {
				t.Fatalf("%s: %q is not \"never A -> B: reason\"", importsFile, line)
			}
			table.walls = append(table.walls, wall{from, to, strings.TrimSpace(rest)})
			continue
		}
		if _, twice := table.allowed[head]; !ok || twice || strings.Contains(head, " ") {
			t.Fatalf("%s: %q is not \"package: import ...\", or is there twice", importsFile, line)
		}
		table.allowed[head] = strings.Fields(rest)
	}
	if len(table.allowed) < 40 || len(table.walls) < 10 || len(table.private) < 2 {
		t.Fatalf("%s: only %d packages, %d walls and %d private packages were read", importsFile, len(table.allowed), len(table.walls), len(table.private))
	}
	return table
}

// problems are what is wrong between the table and what packages import; imports has them relative to the module.
func (table importTable) problems(imports map[string][]string) (out []string) {
	for _, p := range slices.Sorted(maps.Keys(imports)) {
		allowed, listed := table.allowed[p]
		if !listed {
			out = append(out, p+" has no line in internal/rules/"+importsFile+": add \""+strings.TrimSpace(p+": "+strings.Join(imports[p], " "))+
				"\", and say in the commit what the package is for and why it needs these")
			continue
		}
		for _, imp := range imports[p] {
			if !slices.Contains(allowed, imp) {
				out = append(out, p+" imports "+imp+", which its line does not name: import less, or add "+imp+" to the line of "+p+
					" in internal/rules/"+importsFile+" and give the reason in the commit")
			}
			for _, w := range table.walls {
				if below(p, w.from) && below(imp, w.to) {
					out = append(out, p+" imports "+imp+": "+w.reason)
				}
			}
			for _, r := range table.private {
				if r.refuses(p, imp) {
					out = append(out, p+" imports "+imp+": "+r.reason)
				}
			}
		}
		for _, imp := range allowed {
			if !slices.Contains(imports[p], imp) {
				out = append(out, p+" does not import "+imp+" any more: take it from its line in internal/rules/"+importsFile)
			}
		}
	}
	for _, p := range slices.Sorted(maps.Keys(table.allowed)) {
		if _, is := imports[p]; !is {
			out = append(out, p+" is gone: take its line from internal/rules/"+importsFile)
		}
	}
	return out
}

// below reports whether a package is another one, or lies below it.
func below(p, top string) bool { return p == top || strings.HasPrefix(p, top+"/") }

// TestImports holds the house's walls: a package has exactly the imports that its line allows.
func TestImports(t *testing.T) {
	imports := map[string][]string{}
	for _, p := range load(t) {
		if len(p.GoFiles) == 0 {
			continue
		}
		own := []string{}
		for _, imp := range p.Imports {
			if rel, ok := strings.CutPrefix(imp, module+"/"); ok {
				own = append(own, rel)
			}
		}
		imports[strings.TrimPrefix(p.ImportPath, module+"/")] = own
	}
	for _, problem := range readImports(t).problems(imports) {
		t.Error(problem)
	}
}

// TestImportsFinds checks that the rule sees each kind of breach, and says what to do.
func TestImportsFinds(t *testing.T) {
	table := importTable{
		allowed: map[string][]string{"hub": {"internal/wire"}, "hub/api": {"edgeagent"}, "gone": nil},
		walls:   []wall{{"hub", "edgeagent", "they share only wire"}},
		private: []private{{"store/engine", []string{"hub"}, "another may take its place"}},
	}
	for want, imports := range map[string]map[string][]string{
		"add \"new: internal/wire\", and say in the commit":                                       {"new": {"internal/wire"}},
		"add sched to the line of hub in internal/rules/testdata/imports.txt and give the reason": {"hub": {"internal/wire", "sched"}},
		"hub does not import internal/wire any more":                                              {"hub": nil},
		"hub/api imports edgeagent: they share only wire":                                         {"hub/api": {"edgeagent"}},
		"hub/api imports store/engine/sub: another may take its place":                            {"hub/api": {"store/engine/sub"}},
		"gone is gone": {},
	} {
		if got := table.problems(imports); !slices.ContainsFunc(got, func(s string) bool { return strings.Contains(s, want) }) {
			t.Errorf("%v: %q, want %q", imports, got, want)
		}
	}
	for _, p := range []string{"hub", "store/engine", "store/engine/sub"} {
		if table.private[0].refuses(p, "store/engine/sub") {
			t.Errorf("%s may not import what it may", p)
		}
	}
}
