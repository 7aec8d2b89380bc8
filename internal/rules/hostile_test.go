package rules

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// production calls f for each Go file of the tree's folder that is no test.
func production(t *testing.T, folder string, f func(rel, text string)) {
	t.Helper()
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(filepath.Join(root, folder), func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		b, err := os.ReadFile(path)
		rel, _ := filepath.Rel(root, path)
		f(filepath.ToSlash(rel), string(b))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestSecondsDoNotOverflow exists because a field with seconds in an API object may hold any int64.
func TestSecondsDoNotOverflow(t *testing.T) {
	multiplied := regexp.MustCompile(`time\.Duration\(.+\) ?\* ?time\.Second`)
	allowed := map[string]string{
		"internal/kube/seconds.go":       "the one place, which clamps",
		"hub/apiserver/body.go":          "bytes of a body, at most 3 MiB",
		"hub/dispatch/node.go":           "the link's keepalive, checked when the node says it",
		"hub/registry/podverbs/token.go": "at most 2^32 seconds, checked beside it",
	}
	for _, folder := range []string{"hub", "edgeagent", "internal"} {
		production(t, folder, func(rel, text string) {
			if found := multiplied.FindString(text); found != "" && allowed[rel] == "" {
				t.Errorf("%s: %s overflows for what a client may send; use kube.Seconds", rel, found)
			}
		})
	}
}

// TestGoroutinesOfRequestsAreContained exists because net/http recovers on the handler's goroutine only; a panic on another one
// that a request started would end the hub.
func TestGoroutinesOfRequestsAreContained(t *testing.T) {
	harmless := map[string]string{
		"hub/apiserver/server.go":         "waits for the hub's end",
		"hub/apiserver/podstream/spdy.go": "passes a stream on; its readers are contained",
	}
	production(t, "hub/apiserver", func(rel, text string) {
		file, err := parser.ParseFile(token.NewFileSet(), rel, text, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			var node ast.Node
			switch n := n.(type) {
			case *ast.GoStmt:
				node = n
			case *ast.CallExpr:
				if s, ok := n.Fun.(*ast.SelectorExpr); ok && s.Sel.Name == "Go" && !strings.HasPrefix(text[n.Pos()-1:n.End()-1], "contain.") {
					node = n
				}
			}
			if node != nil && harmless[rel] == "" && !strings.Contains(text[node.Pos()-1:node.End()-1], "contain.") {
				t.Errorf("%s: a goroutine without contain.Go: %.60q", rel, text[node.Pos()-1:node.End()-1])
			}
			return true
		})
	})
}
