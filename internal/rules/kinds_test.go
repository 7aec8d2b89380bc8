package rules

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"
)

// TestRegistryNamesNoKind checks that the registry knows verbs, kinds declare what is special about them (hub/resource), and
// what only one kind has is a Handler (hub/registry/podverbs). So its production files import no API types, name none of
// internal/kube's kinds and hold no literal that is a kind's or a verb-like subresource's name.
func TestRegistryNamesNoKind(t *testing.T) {
	names := map[string]bool{"binding": true, "eviction": true, "token": true}
	vars := map[string]bool{}
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, filepath.Join("..", "kube", "object.go"), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok || len(call.Args) != 1 {
			return true
		}
		fun, ok := call.Fun.(*ast.SelectorExpr)
		if lit, isLit := call.Args[0].(*ast.BasicLit); ok && isLit && fun.Sel.Name == "WithKind" {
			kind := strings.Trim(lit.Value, `"`)
			plural := strings.ToLower(kind) + "s"
			vars[kind], names[kind], names[strings.ToLower(kind)], names[plural] = true, true, true, true
		}
		return true
	})
	if !vars["Pod"] || !vars["Lease"] {
		t.Fatalf("internal/kube/object.go declares no kinds any more: %v", vars)
	}
	for _, p := range load(t) {
		if p.ImportPath != module+"/hub/registry" {
			continue
		}
		for _, f := range p.GoFiles {
			file, err := parser.ParseFile(fset, filepath.Join(p.Dir, f), nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, imp := range file.Imports {
				if strings.HasPrefix(imp.Path.Value, `"k8s.io/api/`) {
					t.Errorf("hub/registry/%s imports %s: types of kinds belong to hub/resource or to a handler", f, imp.Path.Value)
				}
			}
			ast.Inspect(file, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.SelectorExpr:
					if id, ok := n.X.(*ast.Ident); ok && id.Name == "kube" && vars[n.Sel.Name] {
						t.Errorf("hub/registry/%s names the kind %s: let its declaration say what is special", f, n.Sel.Name)
					}
				case *ast.BasicLit:
					if n.Kind == token.STRING && names[strings.Trim(n.Value, "`\"")] {
						t.Errorf("hub/registry/%s holds the name %s: let the kind or a handler say what is special", f, n.Value)
					}
				}
				return true
			})
		}
	}
}
