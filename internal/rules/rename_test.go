package rules

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"
)

// renames are the production files that rename by themselves, and why internal/durable is not for them.
var renames = map[string]string{
	"internal/durable/durable.go":  "the one place for files that must survive a power cut",
	"edgeagent/podlog/pump.go":     "rotates a container's log: nothing in it is waited for",
	"edgeagent/volume/emptydir.go": "gives a finished directory its name; what is in it is the pod's",
	"edgeagent/volume/claim.go":    "swaps a link to a volume; made again from the desired set",
	"edgeagent/volume/atomic.go":   "swaps the link of a volume as kubelet does; made again from the desired set at each start",
	"edgeagent/ctrd/child.go":      "sets containerd's own directory and log aside before a start",
}

// TestFilesAreReplacedByDurable exists because "write beside, sync, rename, sync the directory" is easy to get nearly right. A
// rename in production code is internal/durable's, or has a reason above.
func TestFilesAreReplacedByDurable(t *testing.T) {
	used := map[string]bool{}
	for _, p := range load(t) {
		if within(p.ImportPath, "test") {
			continue
		}
		for _, f := range p.GoFiles {
			rel := strings.TrimPrefix(p.ImportPath, module+"/") + "/" + f
			for _, call := range renamesIn(t, filepath.Join(p.Dir, f)) {
				if renames[rel] == "" {
					t.Errorf("%s calls %s: use internal/durable (WriteFile, Replace, WriteVolatile, Rename), or give the reason in rename_test.go", rel, call)
				}
				used[rel] = true
			}
		}
	}
	for rel := range renames {
		if !used[rel] {
			t.Errorf("%s renames nothing any more: take it out of rename_test.go", rel)
		}
	}
}

// renamesIn lists the calls in a file that give a file another name.
func renamesIn(t *testing.T, path string) (calls []string) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		x, ok := sel.X.(*ast.Ident)
		if !ok {
			return true
		}
		switch name := x.Name + "." + sel.Sel.Name; name {
		case "os.Rename", "os.Link", "unix.Rename", "unix.Renameat", "unix.Renameat2", "unix.Link", "unix.Linkat",
			"syscall.Rename", "syscall.Renameat", "syscall.Link":
			calls = append(calls, name)
		}
		return true
	})
	return calls
}
