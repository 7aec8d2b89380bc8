package inventory

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/google/licensecheck"
)

// allowed are the licences that a binary may be passed on under as it is done here: with all texts beside it.
var allowed = map[string]bool{
	"Apache-2.0": true, "MIT": true, "MIT-0": true, "ISC": true, "Zlib": true, "0BSD": true, "BSL-1.0": true,
	"BSD-1-Clause": true, "BSD-2-Clause": true, "BSD-3-Clause": true,
	"Unlicense": true, "CC0-1.0": true, "BlueOak-1.0.0": true,
	// Its files' sources have to be offered: they are, unchanged, as the Go module of that version.
	"MPL-2.0": true,
}

// looked has what a person found in files whose text does not say it to a program: by module and file, an SPDX expression, or nothing
// for what is no licence, but a notice about one that stands beside it. Such files go with the binary all the same.
var looked = map[string]map[string]string{
	"github.com/eclipse/paho.mqtt.golang":             {"LICENSE": "(BSD-3-Clause OR EPL-2.0)", "edl-v10": ""}, // the latter is the BSD licence
	"github.com/miekg/dns":                            {"COPYRIGHT": ""},
	"github.com/grpc-ecosystem/go-grpc-middleware/v2": {"COPYRIGHT": ""},
	"github.com/spdx/tools-golang":                    {"LICENSE.code": "(Apache-2.0 OR GPL-2.0-or-later)"}, // not in petrel, but in this module's own tests
	"modernc.org/memory":                              {"LICENSE-LOGO": ""},
	"modernc.org/libc":                                {"LICENSE-3RD-PARTY.md": "MIT AND BSD-2-Clause AND BSD-3-Clause"}, // musl
	"modernc.org/sqlite":                              {"LICENSE-3RD-PARTY.md": "MIT", "LICENSE-SQLITE": "blessing"},     // SQLite itself is in the public domain
}

// minCoverage is the part of a text, in percent, that has to be a licence's, so that the text is one and not about one.
const minCoverage = 75

// named are files with a licence, a notice or a grant of patents. Sources with such names are none.
var (
	named    = regexp.MustCompile(`(?i)^((un)?licen[cs]e|copying|copyright|notice|patents)([-_.].*)?$|[-_.](un)?licen[cs]e(\.(txt|md))?$`)
	noText   = regexp.MustCompile(`(?i)\.(go|s|c|h|sh|py|js|tmpl|tpl|ya?ml|json|docs|header|html)$`)
	granting = regexp.MustCompile(`(?i)licen[cs]e|copying|copyright`)
)

// texts returns the licences and notices of a module: those in its root, and those beside and above packages that are linked in.
func texts(module, root string, packages []string) ([]Text, error) {
	dirs := []string{root}
	for _, p := range packages {
		for strings.HasPrefix(p, root+string(filepath.Separator)) {
			if !slices.Contains(dirs, p) {
				dirs = append(dirs, p)
			}
			p = filepath.Dir(p)
		}
	}
	slices.Sort(dirs) // the order of packages depends on the Go tool, that of texts must not
	var out []Text
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			_, known := looked[module][e.Name()]
			if e.IsDir() || !known && (!named.MatchString(e.Name()) || noText.MatchString(e.Name())) {
				continue
			}
			body, err := fs.ReadFile(os.DirFS(dir), e.Name())
			if err != nil {
				return nil, err
			}
			name, err := filepath.Rel(root, filepath.Join(dir, e.Name()))
			if err != nil {
				return nil, err
			}
			out = append(out, Text{Name: filepath.ToSlash(name), Body: strings.ReplaceAll(string(body), "\r\n", "\n")})
		}
	}
	return out, nil
}

// license returns the expression for all texts of a part. Several are joined by AND, also where one of them would do: that asks for
// more than the authors do, and never for less.
func license(p Part) (string, error) {
	var all []string
	for _, t := range p.Texts {
		if expression, known := looked[p.Name][t.Name]; known {
			all = append(all, strings.Split(expression, " AND ")...)
			continue
		}
		if !granting.MatchString(filepath.Base(t.Name)) {
			continue
		}
		// In the depths of a module, licences stand beside other texts with such names, such as headers of generated files.
		found := recognise(t.Body)
		if len(found) == 0 && !strings.Contains(t.Name, "/") {
			return "", fmt.Errorf("%s is no text of a licence that is known: look at it, and add it to the list", t.Name)
		}
		for _, id := range found {
			if !allowed[id] {
				return "", fmt.Errorf("%s is none of the licences that are passed on: look at what it asks for", id)
			}
		}
		all = append(all, found...)
	}
	all = slices.DeleteFunc(all, func(s string) bool { return s == "" })
	if len(all) == 0 {
		return "", errors.New("it has no text of a licence")
	}
	slices.Sort(all)
	return strings.Join(slices.Compact(all), " AND "), nil
}

// recognise returns the identifiers of the licences that a text consists of.
func recognise(text string) (ids []string) {
	found := licensecheck.Scan([]byte(text))
	if found.Percent < minCoverage {
		return nil
	}
	for _, m := range found.Match {
		if !m.IsURL && !slices.Contains(ids, m.ID) {
			ids = append(ids, m.ID)
		}
	}
	return ids
}
