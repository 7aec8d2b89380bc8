package rules

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

const module = "petrel.dev/petrel"

// pkg is what the rules look at, of `go list -json`.
type pkg struct {
	ImportPath   string
	Dir          string
	Doc          string
	Name         string
	Imports      []string
	TestImports  []string
	XTestImports []string
	GoFiles      []string
	TestGoFiles  []string
	XTestGoFiles []string
}

// packages lists the module once. Run these tests with -count=1: the test cache does not see what go list reads.
var packages = sync.OnceValues(func() ([]pkg, error) {
	cmd := exec.Command("go", "list", "-json=ImportPath,Dir,Doc,Name,Imports,TestImports,XTestImports,GoFiles,TestGoFiles,XTestGoFiles", module+"/...")
	cmd.Dir = "../.."
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w: %s", err, stderr.String())
	}
	var all []pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
})

func load(t *testing.T) []pkg {
	t.Helper()
	all, err := packages()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// within reports whether an import path is the package (relative to the module) or below it.
func within(path, rel string) bool {
	full := module + "/" + rel
	return path == full || strings.HasPrefix(path, full+"/")
}

// TestPackagesAreDocumented exists because a stranger finds the room by its name and learns its contract from its first
// comment.
func TestPackagesAreDocumented(t *testing.T) {
	for _, p := range load(t) {
		if len(p.GoFiles) > 0 && strings.TrimSpace(p.Doc) == "" {
			t.Errorf("%s has no package comment", p.ImportPath)
		}
		for _, bad := range []string{"util", "utils", "common", "helpers", "types", "manager", "misc"} {
			if p.Name == bad {
				t.Errorf("%s: the name %q says nothing of what is in it", p.ImportPath, bad)
			}
		}
	}
}

// TestFilesStaySmall exists because past 800 lines a file holds two things.
func TestFilesStaySmall(t *testing.T) {
	const limit = 800
	for _, p := range load(t) {
		for _, files := range [][]string{p.GoFiles, p.TestGoFiles, p.XTestGoFiles} {
			for _, f := range files {
				b, err := os.ReadFile(filepath.Join(p.Dir, f))
				if err != nil {
					t.Fatal(err)
				}
				if n := bytes.Count(b, []byte("\n")); n > limit {
					t.Errorf("%s/%s has %d lines (limit %d)", p.ImportPath, f, n, limit)
				}
			}
		}
	}
}

// TestDependenciesHaveReasons checks that what go.mod requires directly is chosen, and docs/dependencies.md says why.
func TestDependenciesHaveReasons(t *testing.T) {
	cmd := exec.Command("go", "mod", "edit", "-json")
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go mod edit: %v", err)
	}
	var mod struct {
		Require []struct {
			Path     string
			Indirect bool
		}
		Tool []struct{ Path string }
	}
	if err := json.Unmarshal(out, &mod); err != nil {
		t.Fatal(err)
	}
	doc, err := os.ReadFile("../../docs/dependencies.md")
	if err != nil {
		t.Fatal(err)
	}
	named := func(path string) bool { return bytes.Contains(doc, []byte("`"+path+"`")) }
	direct := 0
	for _, r := range mod.Require {
		tool := false
		for _, tl := range mod.Tool {
			tool = tool || strings.HasPrefix(tl.Path, r.Path+"/")
		}
		if r.Indirect && !tool {
			continue
		}
		direct++
		if !named(r.Path) {
			t.Errorf("%s is required by go.mod and has no line in docs/dependencies.md: give its reason there, or do without it", r.Path)
		}
	}
	if direct < 10 {
		t.Fatalf("only %d direct requirements were read: this test looks at the wrong thing", direct)
	}
}

// TestFolders checks that the top level is fixed, so that every checkout looks the same to a newcomer.
func TestFolders(t *testing.T) {
	allowed := map[string]bool{
		"cmd": true, "hub": true, "edgeagent": true, "sqlstore": true, "sched": true, "svcproxy": true, "cross-build": true,
		"test": true, "internal": true, "docs": true, "examples": true, "go.mod": true, "go.sum": true, "Makefile": true,
		"README.md": true, "LICENSE": true, "bin": true, "dist": true,
	}
	entries, err := os.ReadDir("../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !allowed[e.Name()] && !strings.HasPrefix(e.Name(), ".") {
			t.Errorf("%s does not belong on the top level", e.Name())
		}
	}
}
