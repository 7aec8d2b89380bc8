package complete

import (
	"maps"
	"slices"
	"strings"

	"github.com/alecthomas/kong"

	"petrel.dev/petrel/internal/cli/commandtree"
)

// complete returns what can be in place of the last word; words that do not begin like it may be among them.
func (l *line) complete(last string) Answer {
	switch {
	case l.pending != nil:
		return l.value(l.pending, "")
	case l.ended:
	case strings.HasPrefix(last, "--") && strings.Contains(last, "="):
		name, _, _ := strings.Cut(last, "=")
		if f := find(l.node, func(f *kong.Flag) bool { return "--"+f.Name == name }); f != nil {
			return l.value(f, name+"=")
		}
		return Answer{}
	case strings.HasPrefix(last, "-"):
		var a Answer
		for _, f := range commandtree.Flags(l.node) {
			a.Words = append(a.Words, Word{"--" + f.Name, f.Help})
			if f.Tag.Negatable != "" {
				a.Words = append(a.Words, Word{"--no-" + f.Name, "Not: " + f.Help})
			}
		}
		return a
	}
	if len(l.node.Children) > 0 && len(l.args) == 0 {
		var a Answer
		for _, c := range l.node.Children {
			if c.Type == kong.CommandNode && !c.Hidden {
				a.Words = append(a.Words, Word{c.Name, c.Help})
			}
		}
		return a
	}
	return l.argument(last)
}

// value completes the value of a flag; before is what stands in front of it in the same word.
func (l *line) value(f *kong.Flag, before string) Answer {
	var values []string
	switch {
	case f.Name == "namespace":
		values = l.server().Names("namespaces")
	case f.Name == "context":
		values = l.server().Contexts()
	case f.Enum != "":
		values = slices.DeleteFunc(slices.Sorted(maps.Keys(f.EnumMap())), func(s string) bool { return s == "" })
	case f.Name == "output":
		for _, format := range []string{"json", "name", "wide", "yaml"} {
			if strings.Contains(f.Help, format) {
				values = append(values, format)
			}
		}
	default:
		return Answer{Files: f.Tag.Type == "path" || f.PlaceHolder == "FILE" || f.PlaceHolder == "DIR"}
	}
	return words(before, values)
}

// argument completes an argument by its name in the command's usage.
func (l *line) argument(last string) Answer {
	n := len(l.node.Positional)
	if n == 0 {
		return Answer{}
	}
	p := l.node.Positional[min(len(l.args), n-1)]
	if len(l.args) >= n && !p.IsSlice() {
		return Answer{}
	}
	switch {
	case p.Name == "what" && len(l.args) > 0 && !strings.Contains(l.args[0], "/"):
		return l.names(l.args[0], "", l.args[1:])
	case p.Name == "what" && !strings.Contains(last, "/"):
		before := last[:strings.LastIndex(last, ",")+1] // pods,services
		return words(before, l.server().Types())
	case p.Name == "what", p.Name == "pod" && strings.Contains(last, "/"):
		typ, _, _ := strings.Cut(last, "/")
		return l.names(typ, typ+"/", l.args)
	case p.Name == "pod" && len(l.args) == 0:
		return l.names("pods", "", nil)
	case p.Name == "context" && len(l.args) == 0, p.Name == "contexts":
		return words("", l.server().Contexts())
	case p.Name == "nodes":
		return l.names("nodes", "", l.args)
	case p.Name == "type.field":
		return words("", l.server().Types())
	case p.Enum != "":
		return words("", slices.Sorted(maps.Keys(p.EnumMap())))
	}
	return Answer{Files: p.Tag.Type == "path" || p.Name == "files"}
}

// names completes the names of a type's objects, without those that the line has already.
func (l *line) names(typ, before string, have []string) Answer {
	names := slices.DeleteFunc(l.server().Names(typ), func(name string) bool { return slices.Contains(have, before+name) })
	return words(before, names)
}

func (l *line) server() Server { return l.open(l.cluster) }

func words(before string, texts []string) (a Answer) {
	for _, t := range texts {
		a.Words = append(a.Words, Word{Text: before + t})
	}
	return a
}
