package rules

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// sources lists the module's files with one of the endings, tests too, by their slash paths from the module's root.
func sources(t *testing.T, endings ...string) (files []string) {
	t.Helper()
	root := filepath.Join("..", "..")
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() && path != root && (strings.HasPrefix(e.Name(), ".") || path == filepath.Join(root, "bin")) {
			return filepath.SkipDir
		}
		if !e.IsDir() && slices.Contains(endings, filepath.Ext(path)) {
			rel, err := filepath.Rel(root, path)
			files = append(files, filepath.ToSlash(rel))
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// parsed parses one of the sources with its comments. Line directives are not obeyed.
func parsed(t *testing.T, rel string) (*token.FileSet, *ast.File) {
	t.Helper()
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, filepath.Join("..", "..", filepath.FromSlash(rel)), nil, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	return fset, file
}

// TestDocCommentsAreSentences exists because godoc, editors and readers expect "Name does …" or "Name reports whether …".
// A comment of the form "name: clause" is no sentence, and its subject has to be guessed.
func TestDocCommentsAreSentences(t *testing.T) {
	list, seen := readWords(t), 0
	for _, rel := range sources(t, ".go") {
		if list.skips(rel) {
			continue
		}
		fset, file := parsed(t, rel)
		for _, d := range docs(file) {
			seen++
			text := strings.TrimSpace(d.comment.Text())
			for _, name := range d.names {
				if strings.HasPrefix(text, name+":") {
					t.Errorf("%s:%d: write a sentence instead of %q: \"%s does …\", \"%s reports whether …\"",
						rel, fset.Position(d.comment.Pos()).Line, name+": …", name, name)
				}
			}
		}
	}
	if seen < 1000 {
		t.Fatalf("only %d doc comments were read", seen)
	}
}

// doc is the comment of a declaration, and what that declares.
type doc struct {
	comment *ast.CommentGroup
	names   []string
}

// docs finds the doc comments of a file's functions, types, constants, variables, fields and interface methods, those inside
// of functions too.
func docs(file *ast.File) (all []doc) {
	add := func(c *ast.CommentGroup, idents ...*ast.Ident) {
		if c == nil {
			return
		}
		d := doc{comment: c}
		for _, id := range idents {
			d.names = append(d.names, id.Name)
		}
		all = append(all, d)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			add(n.Doc, n.Name)
		case *ast.GenDecl:
			for _, s := range n.Specs {
				switch s := s.(type) {
				case *ast.TypeSpec:
					add(n.Doc, s.Name)
					add(s.Doc, s.Name)
				case *ast.ValueSpec:
					add(n.Doc, s.Names...)
					add(s.Doc, s.Names...)
				}
			}
		case *ast.Field:
			add(n.Doc, n.Names...)
		}
		return true
	})
	return all
}

// wordList is testdata/words.txt.
type wordList struct {
	words   map[*regexp.Regexp]string // what to write instead
	unclean []string                  // packages, with those below them, that are not checked yet
}

// readWords reads lines of the forms "words | what to write instead" and "unclean package".
func readWords(t *testing.T) (list wordList) {
	t.Helper()
	b, err := os.ReadFile("testdata/words.txt")
	if err != nil {
		t.Fatal(err)
	}
	list.words = map[*regexp.Regexp]string{}
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if dir, ok := strings.CutPrefix(line, "unclean "); ok {
			list.unclean = append(list.unclean, strings.TrimSpace(dir))
			continue
		}
		bad, instead, ok := strings.Cut(line, "|")
		if !ok || strings.TrimSpace(instead) == "" {
			t.Fatalf("testdata/words.txt: %q does not say what to write instead", line)
		}
		// Words may stand on two lines, with the comment's slashes between them.
		pattern := strings.Join(strings.Fields(bad), `[\s/]+`)
		list.words[regexp.MustCompile(`(?i)\b(?:`+pattern+`)\b`)] = strings.TrimSpace(instead)
	}
	if len(list.words) < 10 {
		t.Fatalf("testdata/words.txt has only %d words", len(list.words))
	}
	return list
}

// skips reports whether a file lies in a package that is not clean yet.
func (l wordList) skips(rel string) bool {
	return slices.ContainsFunc(l.unclean, func(dir string) bool { return below(rel, dir) })
}

// find returns a line for each banned word in text.
func (l wordList) find(text string) (found []string) {
	for word, instead := range l.words {
		for _, m := range word.FindAllString(text, -1) {
			found = append(found, fmt.Sprintf("%q: write %s", strings.Join(strings.Fields(m), " "), instead))
		}
	}
	slices.Sort(found)
	return found
}

// TestPlainWords checks comments and pages for words that have a plainer one in the glossary. Many who read them did not
// learn English first.
func TestPlainWords(t *testing.T) {
	list := readWords(t)
	read := 0
	for _, rel := range sources(t, ".go", ".md") {
		if list.skips(rel) {
			continue
		}
		if filepath.Ext(rel) == ".md" {
			read++
			for i, line := range prose(t, rel) {
				for _, f := range list.find(line) {
					t.Errorf("%s:%d: %s", rel, i+1, f)
				}
			}
			continue
		}
		fset, file := parsed(t, rel)
		for _, c := range file.Comments {
			read++
			for _, f := range list.find(c.Text()) {
				t.Errorf("%s:%d: %s", rel, fset.Position(c.Pos()).Line, f)
			}
		}
	}
	if read < 4000 {
		t.Fatalf("only %d comments and pages were read", read)
	}
}

// prose returns a page's lines; those inside of code blocks are empty, and `code` in a line is left out.
func prose(t *testing.T, rel string) (lines []string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", filepath.FromSlash(rel)))
	if err != nil {
		t.Fatal(err)
	}
	code, inline := false, regexp.MustCompile("`[^`]*`")
	for line := range strings.Lines(string(b)) {
		fence := strings.HasPrefix(strings.TrimSpace(line), "```")
		if fence {
			code = !code
		}
		if code || fence {
			line = ""
		}
		lines = append(lines, inline.ReplaceAllString(line, ""))
	}
	return lines
}

// packageLimit is how many production lines a package may have without a reason.
const packageLimit = 3000

// largePackages are those that may have more, how many, and why they are not two.
var largePackages = map[string]struct {
	lines  int
	reason string
}{
	"internal/cli":   {4400, "one command a file; they share the printers and the client, and only the command tree imports them"},
	"edgeagent/ctrd": {4000, "the only door to containerd: a split would be a second one"},
	"hub/registry":   {3550, "one pipeline for all requests; what belongs to one kind, and what needs no store, is in rooms below it"},
	"hub/dispatch":   {3600, "its pure parts are already in rooms of their own"},
	"svcproxy":       {3150, "proxy and DNS serve one table of Services, which they take up together"},
	"hub/apiserver":  {3150, "HTTP of all verbs; streams to pods are already in apiserver/podstream"},
}

// TestPackagesStaySmall exists because a package of this size has lost its walls: everything in it can reach everything.
func TestPackagesStaySmall(t *testing.T) {
	lines := map[string]int{}
	for _, rel := range sources(t, ".go") {
		if strings.HasSuffix(rel, "_test.go") {
			continue
		}
		b, err := os.ReadFile(filepath.Join("..", "..", filepath.FromSlash(rel)))
		if err != nil {
			t.Fatal(err)
		}
		dir, _ := filepath.Split(rel)
		lines[strings.TrimSuffix(dir, "/")] += bytes.Count(b, []byte("\n"))
	}
	for _, dir := range slices.Sorted(maps.Keys(lines)) {
		limit := max(packageLimit, largePackages[dir].lines)
		if n := lines[dir]; n > limit {
			t.Errorf("%s has %d production lines (limit %d): give a part of it a room of its own", dir, n, limit)
		}
	}
	for dir, l := range largePackages {
		if lines[dir] == 0 || l.reason == "" {
			t.Errorf("%s: there is no such package, or no reason", dir)
		}
	}
}

// TestFunctionsStayShort exists because a longer function does not fit on a screen, and does two things.
func TestFunctionsStayShort(t *testing.T) {
	const limit = 105
	for _, rel := range sources(t, ".go") {
		if strings.HasSuffix(rel, "_test.go") {
			continue
		}
		fset, file := parsed(t, rel)
		for _, d := range file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			first, last := fset.Position(f.Pos()).Line, fset.Position(f.End()).Line
			if n := last - first + 1; n > limit {
				t.Errorf("%s:%d: %s has %d lines (limit %d)", rel, first, f.Name.Name, n, limit)
			}
		}
	}
}

// TestWordList checks the rules of this file on small examples, so that a rule that finds nothing is not one that sees nothing.
func TestWordList(t *testing.T) {
	list := readWords(t)
	for _, bad := range []string{"it waits for\never", "Whoever asks", "f tells whether g holds"} {
		if len(list.find(bad)) == 0 {
			t.Errorf("%q is not found", bad)
		}
	}
	if found := list.find("whatever you tell a whetherman"); len(found) > 0 {
		t.Errorf("found in harmless words: %v", found)
	}
	file, err := parser.ParseFile(token.NewFileSet(), "x.go", "package x\n// t: one\ntype t struct {\n// f: two\nf int }\n// g: three\nfunc (t) g() {\n// h: four\nvar h int }\n", parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	var wrong []string
	for _, d := range docs(file) {
		if strings.HasPrefix(d.comment.Text(), d.names[0]+":") {
			wrong = append(wrong, d.names[0])
		}
	}
	if want := []string{"t", "f", "g", "h"}; !slices.Equal(wrong, want) {
		t.Errorf("doc comments of the wrong form: %v, want %v", wrong, want)
	}
}
