package rules

import (
	"go/parser"
	"go/token"
	"path/filepath"
	"strconv"
	"testing"
)

// TestEngineIsChosenInOneFile holds that of the hub's files only store.go names an engine of the store: the rest sees what any
// engine has.
func TestEngineIsChosenInOneFile(t *testing.T) {
	named := 0
	for _, p := range load(t) {
		if p.ImportPath != module+"/hub" {
			continue
		}
		for _, f := range p.GoFiles {
			file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, f), nil, parser.ImportsOnly)
			if err != nil {
				t.Fatal(err)
			}
			for _, imp := range file.Imports {
				path, err := strconv.Unquote(imp.Path.Value)
				if err != nil {
					t.Fatal(err)
				}
				switch {
				case !below(path, module+"/sqlstore") || path == module+"/sqlstore":
				case path == module+"/sqlstore/sealed": // no engine: a Store over any of them
				case f == "store.go":
					named++
				default:
					t.Errorf("hub/%s imports %s: only hub/store.go chooses the engine; use what sqlstore.Store, or the hub's own interface engine, offers", f, path)
				}
			}
		}
	}
	if named == 0 {
		t.Error("hub/store.go imports no engine: this rule looks at the wrong file")
	}
}
