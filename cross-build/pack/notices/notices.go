// Package notices writes the licences and notices of all that is in a binary into one text, which goes with it.
package notices

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"petrel.dev/petrel/cross-build/pack/inventory"
)

const rule = "================================================================================"

// Text returns the text. Each licence stands in it once, behind the names of all that have it.
func Text(b inventory.Binary) string {
	parts := map[string]inventory.Part{}
	add := func(p inventory.Part) {
		if p.Name == "" {
			return
		}
		old := parts[p.Key()]
		for _, t := range old.Texts { // two programs may have different packages of one module
			if !slices.Contains(p.Texts, t) {
				p.Texts = append(p.Texts, t)
			}
		}
		parts[p.Key()] = p
	}
	for _, one := range append([]inventory.Binary{b}, b.Inside...) {
		add(one.Part)
		for _, p := range one.Parts {
			add(p)
		}
	}
	sorted := slices.SortedFunc(maps.Values(parts), func(a, b inventory.Part) int { return cmp.Compare(a.Key(), b.Key()) })
	var out strings.Builder
	head(&out, b, sorted)
	for _, g := range group(sorted) {
		fmt.Fprintf(&out, "\n%s\n%s\n%s\n\n%s\n", rule, strings.Join(g.of, "\n"), rule, strings.TrimRight(g.body, "\n"))
	}
	return out.String()
}

// head lists the parts, and says where their sources are.
func head(out *strings.Builder, b inventory.Binary, parts []inventory.Part) {
	fmt.Fprintf(out, "What others wrote and %s %s has inside, with the licences and notices that come with it.\nPetrel itself: Apache-2.0.\n", b.Name, b.Version)
	if len(b.Inside) > 0 {
		var names []string
		for _, p := range b.Inside {
			names = append(names, p.Name)
		}
		fmt.Fprintf(out, "Programs inside: %s.\n", strings.Join(names, ", "))
	}
	out.WriteString("\nEach Go module is here as its authors published it; its source is what `go mod download MODULE@VERSION` fetches.\n")
	// The LGPL asks for a way to link with a changed library.
	for _, p := range b.Inside {
		for _, l := range p.Parts {
			if strings.HasPrefix(l.License, "LGPL") {
				fmt.Fprintf(out, "%s %s is linked into %s statically, unchanged. cross-build/programs.sh of Petrel's source links it again, also with another one.\n",
					l.Name, l.Version, p.Name)
			}
		}
	}
	out.WriteString("\n")
	for _, p := range parts {
		fmt.Fprintf(out, "%s %s: %s\n", p.Name, p.Version, p.License)
	}
}

// text is one that stands in the file once.
type text struct {
	body string
	of   []string
}

// group collects equal texts, in the order in which they appear first. Blanks and the ends of lines make no difference.
func group(parts []inventory.Part) (out []*text) {
	seen := map[string]*text{}
	for _, p := range parts {
		for _, t := range p.Texts {
			key := strings.Join(strings.Fields(t.Body), " ")
			if seen[key] == nil {
				seen[key] = &text{body: t.Body}
				out = append(out, seen[key])
			}
			seen[key].of = append(seen[key].of, fmt.Sprintf("%s %s (%s)", p.Name, p.Version, t.Name))
		}
	}
	return out
}
