package rules

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// forTests are exported names that only tests use, and why they are exported all the same. Methods are written Type.Method.
var forTests = map[string]string{
	"internal/contain.Inject": "panics where a test of another package wants one",
}

// foreign are methods that other libraries call by an interface of theirs.
var foreign = map[string]string{
	"KindsFor":               "apimachinery's RESTMapper",
	"CompileOptions":         "cel-go's Library",
	"ProgramOptions":         "cel-go's Library",
	"ResolveSchema":          "apiserver's SchemaResolver",
	"GetOperationOptions":    "apiserver's admission.Attributes",
	"GetReinvocationContext": "apiserver's admission.Attributes",
	"GetUserInfo":            "apiserver's admission.Attributes",
	"Fresh":                  "client-go's CachedDiscoveryInterface",
	"Invalidate":             "client-go's CachedDiscoveryInterface",
	"Less":                   "sort.Interface and container/heap",
	"LogValue":               "slog.LogValuer",
	"Provides":               "mochi's Hook",
	"ServeDNS":               "miekg's Handler",
	"WrappedRoundTripper":    "apimachinery's RoundTripperWrapper",
}

// TestExportedNamesAreUsed checks that what no production code uses is not offered. It goes by names, so it sees only names
// that occur nowhere else; packages that serve tests are free.
func TestExportedNamesAreUsed(t *testing.T) {
	declared := map[string]map[string]token.Position{} // name → "package.Name" or "package.Type.Name" → where
	uses := map[string]int{}                           // identifiers with that name
	declarations := map[string]int{}
	fset := token.NewFileSet()
	for _, p := range load(t) {
		rel := strings.TrimPrefix(p.ImportPath, module+"/")
		for _, f := range p.GoFiles {
			file, err := parser.ParseFile(fset, filepath.Join(p.Dir, f), nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(file, func(n ast.Node) bool {
				if id, ok := n.(*ast.Ident); ok {
					uses[id.Name]++
				}
				return true
			})
			if below(rel, "test") || strings.HasSuffix(rel, "test") {
				continue
			}
			for id, full := range exported(file) {
				if declared[id.Name] == nil {
					declared[id.Name] = map[string]token.Position{}
				}
				declared[id.Name][rel+"."+full] = fset.Position(id.Pos())
				declarations[id.Name]++
			}
		}
	}
	if len(declared) < 500 {
		t.Fatalf("only %d exported names were found", len(declared))
	}
	listed := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(declared)) {
		if uses[name] > declarations[name] {
			continue
		}
		for full := range declared[name] {
			if forTests[full] == "" && foreign[name] == "" {
				t.Errorf("%s is exported, and no production code uses it: take it away, or say in internal/rules/exports_test.go why not", full)
			}
			listed[full], listed[name] = true, true
		}
	}
	for _, list := range []map[string]string{forTests, foreign} {
		for name := range list {
			if !listed[name] {
				t.Errorf("%s is gone, or is used: take it from internal/rules/exports_test.go", name)
			}
		}
	}
}

// exported finds the exported functions, methods, types, variables and constants of a file, with their names in the package.
func exported(file *ast.File) map[*ast.Ident]string {
	out := map[*ast.Ident]string{}
	add := func(id *ast.Ident, prefix string) {
		if id.IsExported() {
			out[id] = prefix + id.Name
		}
	}
	for _, d := range file.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			add(d.Name, receiver(d))
		case *ast.GenDecl:
			for _, s := range d.Specs {
				switch s := s.(type) {
				case *ast.TypeSpec:
					add(s.Name, "")
				case *ast.ValueSpec:
					for _, id := range s.Names {
						add(id, "")
					}
				}
			}
		}
	}
	return out
}

// receiver is the name of a method's type and a dot, or nothing.
func receiver(d *ast.FuncDecl) string {
	if d.Recv == nil || len(d.Recv.List) == 0 {
		return ""
	}
	x := d.Recv.List[0].Type
	if p, ok := x.(*ast.StarExpr); ok {
		x = p.X
	}
	if g, ok := x.(*ast.IndexExpr); ok {
		x = g.X
	}
	if id, ok := x.(*ast.Ident); ok {
		return id.Name + "."
	}
	return ""
}
