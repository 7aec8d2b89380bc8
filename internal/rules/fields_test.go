package rules

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// fieldRoots are the types whose fields people write. What they contain is found by reflection.
var fieldRoots = []any{corev1.PodSpec{}, corev1.ServiceSpec{}, appsv1.DeploymentSpec{}, appsv1.ReplicaSetSpec{}, appsv1.DaemonSetSpec{}, appsv1.StatefulSetSpec{}}

// The lists of docs/fields.md.
const (
	obeyed  = "obeyed"
	refused = "refused"
	without = "without meaning"
)

// fieldRow is what docs/fields.md says of one field.
type fieldRow struct{ list, why, tests string }

// TestEveryFieldIsListed checks that a field of the served API is obeyed, which a test shows, or refused with the reason, or
// has no meaning here, which is written down. Nothing is left out in silence; docs/fields.md is checked against the types, so a
// new version of k8s.io/api that brings a field fails here until one of the three is decided.
func TestEveryFieldIsListed(t *testing.T) {
	rows := fieldTable(t)
	tests := fieldTests{t: t, text: map[string]string{}}
	seen := map[string]bool{}
	done := map[reflect.Type]bool{}
	var walk func(t reflect.Type)
	walk = func(typ reflect.Type) {
		if done[typ] {
			return
		}
		done[typ] = true
		for _, f := range apiFields(typ) {
			name := typ.Name() + "." + f.name
			seen[name] = true
			row, ok := rows[name]
			if !ok {
				t.Errorf("%s is in none of the lists of docs/fields.md: obey it and name the test, refuse it, or say why it means nothing here", name)
				continue
			}
			if row.list != obeyed {
				continue // what is refused or means nothing is so with all that is in it
			}
			if !tests.mention(row, f) {
				t.Errorf("%s: none of the tests that docs/fields.md names mentions it", name)
			}
			if f.typ != nil {
				walk(f.typ)
			}
		}
	}
	for _, r := range fieldRoots {
		walk(reflect.TypeOf(r))
	}
	for name := range rows {
		if !seen[name] {
			t.Errorf("docs/fields.md lists %s, which does not exist, or lies in something that is not obeyed", name)
		}
	}
	tests.exist(rows)
}

// fieldTests finds the tests that docs/fields.md names, as "directory TestName".
type fieldTests struct {
	t    *testing.T
	text map[string]string // of the test files of a directory
}

// exist holds that each obeyed or refused field names tests, and that there are such tests.
func (f fieldTests) exist(rows map[string]fieldRow) {
	t := f.t
	t.Helper()
	for name, row := range rows {
		switch {
		case row.why == "":
			t.Errorf("%s: docs/fields.md does not say how or why", name)
		case row.list == without:
			continue
		case row.tests == "":
			t.Errorf("%s is %s, but docs/fields.md names no test that shows it", name, row.list)
		}
		for _, ref := range strings.Split(row.tests, ",") {
			dir, test, ok := strings.Cut(strings.TrimSpace(ref), " ")
			if !ok {
				t.Errorf("%s: a test is named as directory and function, not %q", name, ref)
				continue
			}
			if !strings.Contains(f.files(dir, "*_test.go"), "\nfunc "+test+"(t *testing.T)") {
				t.Errorf("%s: there is no test %s in %s", name, test, dir)
			}
		}
	}
}

// mention reports whether one of a field's tests has the field's name in it. Of tests that play scripts, the scripts
// and what plays them count.
func (f fieldTests) mention(row fieldRow, field apiField) bool {
	name := regexp.MustCompile(`\b(` + field.goName + `|` + field.name + `)\b`)
	for _, ref := range strings.Split(row.tests, ",") {
		dir, test, _ := strings.Cut(strings.TrimSpace(ref), " ")
		text := f.files(dir, "*_test.go")
		if test == "TestScripts" || test == "TestTimelines" {
			text += f.files(dir, "testdata/*.txt")
		} else {
			text = regexp.MustCompile(`(?ms)^func ` + test + `\(.*?^\}`).FindString(text)
		}
		if name.MatchString(text) {
			return true
		}
	}
	return false
}

func (f fieldTests) files(dir, pattern string) string {
	f.t.Helper()
	key := filepath.Join("../..", dir, pattern)
	if text, ok := f.text[key]; ok {
		return text
	}
	files, err := filepath.Glob(key)
	if err != nil {
		f.t.Fatal(err)
	}
	var all strings.Builder
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			f.t.Fatal(err)
		}
		all.Write(b)
	}
	f.text[key] = all.String()
	return f.text[key]
}

// apiField is a field as a manifest spells it, and as Go does. typ is its struct, where that is one of the Kubernetes
// API's.
type apiField struct {
	name, goName string
	typ          reflect.Type
}

func apiFields(t reflect.Type) []apiField {
	var out []apiField
	for i := range t.NumField() {
		f := t.Field(i)
		name, opts, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" || opts == "inline" {
			out = append(out, apiFields(f.Type)...)
			continue
		}
		typ := f.Type
		for slices.Contains([]reflect.Kind{reflect.Pointer, reflect.Slice, reflect.Map}, typ.Kind()) {
			typ = typ.Elem()
		}
		if typ.Kind() != reflect.Struct || !strings.HasPrefix(typ.PkgPath(), "k8s.io/api/") {
			typ = nil
		}
		out = append(out, apiField{name, f.Name, typ})
	}
	return out
}

var fieldLine = regexp.MustCompile(`^\| ([^|]+) \| ([^|]+) \|([^|]*)\|([^|]*)\|$`)

// fieldTable reads docs/fields.md: a table under a heading for each type, a line for each field or for several.
func fieldTable(t *testing.T) map[string]fieldRow {
	t.Helper()
	b, err := os.ReadFile("../../docs/fields.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]fieldRow{}
	typ := ""
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSuffix(line, "\n")
		if h, ok := strings.CutPrefix(line, "### "); ok {
			typ = strings.TrimSpace(h)
			continue
		}
		m := fieldLine.FindStringSubmatch(line)
		if m == nil || typ == "" || m[1] == "field" || strings.HasPrefix(m[1], "---") {
			if typ != "" && strings.HasPrefix(line, "|") && m == nil && !strings.HasPrefix(line, "|---") {
				t.Errorf("docs/fields.md: a line without four cells: %s", line)
			}
			continue
		}
		row := fieldRow{list: strings.TrimSpace(m[2]), why: strings.TrimSpace(m[3]), tests: strings.TrimSpace(m[4])}
		if !slices.Contains([]string{obeyed, refused, without}, row.list) {
			t.Errorf("docs/fields.md: %s %s: there is no list %q", typ, m[1], row.list)
		}
		for _, f := range strings.Split(m[1], ",") {
			name := typ + "." + strings.TrimSpace(f)
			if _, twice := rows[name]; twice {
				t.Errorf("docs/fields.md lists %s twice", name)
			}
			rows[name] = row
		}
	}
	return rows
}
