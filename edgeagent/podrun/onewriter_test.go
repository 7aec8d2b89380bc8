package podrun

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"strings"
	"sync"
	"testing"
)

// TestOneWriter checks that what runs beside a worker uses its handle only. Functions that a worker's method hands to another
// goroutine touch no field and call no method that is not the handle's.
func TestOneWriter(t *testing.T) {
	fset := token.NewFileSet()
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	shared := map[string]bool{"handle": true} // names of the handle
	var methods []*ast.FuncDecl
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".go") || strings.HasSuffix(e.Name(), "_test.go") {
			continue
		}
		file, err := parser.ParseFile(fset, e.Name(), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Recv != nil && typeName(d.Recv.List[0].Type) == "handle" {
					shared[d.Name.Name] = true
				}
				methods = append(methods, d)
			case *ast.GenDecl:
				for _, s := range d.Specs {
					if ts, ok := s.(*ast.TypeSpec); ok && ts.Name.Name == "handle" {
						for _, f := range ts.Type.(*ast.StructType).Fields.List {
							for _, name := range f.Names {
								shared[name.Name] = true
							}
						}
					}
				}
			}
		}
	}
	if len(shared) < 15 {
		t.Fatalf("the handle has only %d names: the test looks for something that is gone", len(shared))
	}
	checked := 0
	for _, m := range methods {
		w := workerOf(m)
		if w == "" {
			continue
		}
		for _, f := range handedOn(m.Body) {
			checked++
			ast.Inspect(f.Body, func(n ast.Node) bool {
				sel, ok := n.(*ast.SelectorExpr)
				if !ok {
					return true
				}
				if x, ok := sel.X.(*ast.Ident); ok && x.Name == w && !shared[sel.Sel.Name] {
					t.Errorf("%s: %s.%s is used beside the worker, who alone may touch it: hand in its value, and the outcome to the inbox", fset.Position(sel.Pos()), w, sel.Sel.Name)
				}
				return true
			})
		}
	}
	if checked < 15 {
		t.Errorf("only %d functions are handed on: the test looks for something that is gone", checked)
	}
}

func typeName(x ast.Expr) string {
	if p, ok := x.(*ast.StarExpr); ok {
		x = p.X
	}
	if id, ok := x.(*ast.Ident); ok {
		return id.Name
	}
	return ""
}

// workerOf returns the name of a function's worker, receiver or parameter.
func workerOf(d *ast.FuncDecl) string {
	lists := []*ast.FieldList{d.Recv, d.Type.Params}
	for _, l := range lists {
		if l == nil {
			continue
		}
		for _, f := range l.List {
			if typeName(f.Type) == "worker" && len(f.Names) > 0 {
				return f.Names[0].Name
			}
		}
	}
	return ""
}

// handedOn returns the functions that run in other goroutines: after "go", and those given to what starts one.
func handedOn(body *ast.BlockStmt) (out []*ast.FuncLit) {
	add := func(x ast.Expr) {
		if f, ok := x.(*ast.FuncLit); ok {
			out = append(out, f)
		}
	}
	starters := map[string]bool{"job": true, "Go": true, "AfterFunc": true, "atMost": true, "try": true}
	ast.Inspect(body, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			add(n.Call.Fun)
		case *ast.CallExpr:
			name := ""
			switch f := n.Fun.(type) {
			case *ast.Ident:
				name = f.Name
			case *ast.SelectorExpr:
				name = f.Sel.Name
			}
			if starters[name] {
				for _, a := range n.Args {
					add(a)
				}
			}
		}
		return true
	})
	return out
}

// TestInbox checks that nobody waits to put something in, nothing is lost, and what one sender puts in comes out in its order.
func TestInbox(t *testing.T) {
	b := newInbox()
	const senders, each = 8, 500
	var all sync.WaitGroup
	for s := range senders {
		all.Go(func() {
			for n := range each {
				b.put(returned{fmt.Sprintf("%d %d", s, n)})
			}
		})
	}
	all.Wait() // with nobody there to take anything
	select {
	case <-b.ready:
	default:
		t.Error("the worker is not woken")
	}
	next := map[int]int{}
	for r, ok := b.next(); ok; r, ok = b.next() {
		var s, n int
		if _, err := fmt.Sscan(r.(returned).what, &s, &n); err != nil {
			t.Fatal(err)
		}
		if n != next[s] {
			t.Fatalf("sender %d: %d comes out when %d is due", s, n, next[s])
		}
		next[s]++
	}
	for s := range senders {
		if next[s] != each {
			t.Errorf("sender %d: %d of %d", s, next[s], each)
		}
	}
}
