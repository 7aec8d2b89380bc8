package main

import (
	"slices"
	"strings"

	"github.com/alecthomas/kong"

	"petrel.dev/petrel/internal/cli/commandtree"
	"petrel.dev/petrel/internal/cli/nearest"
)

// flagsFirst moves a command's flags before its other arguments. People write `get pod -n web web-1` and
// `label pods -l app=web tier=front`; the parser takes a list of arguments as ended by the first flag within it.
// A flag that it does not know goes first too, for the parser to name.
func flagsFirst(app *kong.Application, args []string) []string {
	node, depth := commandOf(app, args)
	n := len(node.Positional)
	if n == 0 || !node.Positional[n-1].IsSlice() || node.Positional[n-1].Passthrough {
		return args
	}
	flags := map[string]*kong.Flag{}
	for _, group := range node.AllFlags(false) {
		for _, f := range group {
			flags["--"+f.Name] = f
			for _, a := range f.Aliases {
				flags["--"+a] = f
			}
			if f.Short != 0 {
				flags["-"+string(f.Short)] = f
			}
			if f.Tag.Negatable != "" {
				flags["--no-"+f.Name] = f
			}
		}
	}
	var first, rest []string
	for i := depth; i < len(args); i++ {
		a := args[i]
		switch {
		case a == "--":
			rest = append(rest, args[i:]...)
			i = len(args)
		case a == "-" || !strings.HasPrefix(a, "-"):
			rest = append(rest, a)
		default:
			known, takesNext := takesValue(flags, a)
			if known && takesNext && i+1 == len(args) { // its value is missing: in front it would take another's
				rest = append(rest, a)
				break
			}
			first = append(first, a)
			if known && takesNext {
				i++
				first = append(first, args[i])
			}
		}
	}
	return append(append(append([]string{}, args[:depth]...), first...), rest...)
}

// commandFirst moves the flags that say which cluster is meant behind the command, where the parser knows them. kubectl takes
// them on either side: `kubectl -n web get pods`. Any other flag in front of the command stays, for the parser to name.
func commandFirst(app *kong.Application, args []string) []string {
	n := 0 // how many arguments are in front of the command
	for n < len(args) && strings.HasPrefix(args[n], "-") {
		name, _, hasValue := strings.Cut(args[n], "=")
		switch {
		case name == "-n", slices.Contains(commandtree.ClusterFlags, strings.TrimPrefix(name, "--")):
		case strings.HasPrefix(name, "-n"): // -nweb
			hasValue = true
		default:
			return args
		}
		if n++; !hasValue {
			n++
		}
	}
	if n == 0 || n >= len(args) {
		return args
	}
	node, depth := commandOf(app, args[n:])
	if len(node.Children) > 0 { // no command: what follows is mistyped, and the parser shall name it before the flags
		depth = len(args) - n
	}
	out := append([]string{}, args[n:n+depth]...)
	return append(append(out, args[:n]...), args[n+depth:]...)
}

// commandOf returns the command that args begin with, and how many words name it; the application itself and 0 for none.
func commandOf(app *kong.Application, args []string) (node *kong.Node, depth int) {
	node = app.Node
	for depth < len(args) {
		child := childOf(node, args[depth])
		if child == nil {
			break
		}
		node, depth = child, depth+1
	}
	return node, depth
}

// plainly puts the parser's refusals into words for people who do not know it.
func plainly(err error) string {
	text := err.Error()
	if flag, _, ok := strings.Cut(text, `: expected `); ok && strings.HasSuffix(text, `but got "EOL" (<EOL>)`) {
		return flag + " needs a value"
	}
	if what, ok := strings.CutPrefix(text, `expected "<`); ok {
		what, _, _ = strings.Cut(what, ">")
		return "an argument is missing: " + what
	}
	return strings.Replace(text, `must be one of "",`, "must be one of ", 1)
}

// suggested puts the nearest command into the refusal of an argument that is none. The parser's own suggestion counts two swapped
// letters as two mistakes, and offers what is hidden.
func suggested(text string, app *kong.Application, args []string) string {
	refusal, _, _ := strings.Cut(text, ", did you mean ")
	typed, ok := strings.CutPrefix(refusal, "unexpected argument ")
	if !ok {
		return text
	}
	node, _ := commandOf(app, commandFirst(app, args))
	var names []string
	for _, c := range node.Children {
		if c.Type == kong.CommandNode && !c.Hidden {
			names = append(names, c.Name)
		}
	}
	return refusal + nearest.Hint(typed, names)
}

func childOf(node *kong.Node, name string) *kong.Node {
	for _, c := range node.Children {
		if c.Type != kong.CommandNode {
			continue
		}
		if c.Name == name {
			return c
		}
		for _, a := range c.Aliases {
			if a == name {
				return c
			}
		}
	}
	return nil
}

// takesValue looks at one argument that starts with a dash: --flag, --flag=value, -f, -fvalue, -abc.
func takesValue(flags map[string]*kong.Flag, arg string) (known, next bool) {
	isBool := func(f *kong.Flag) bool { return f.IsBool() || f.IsCounter() }
	if strings.HasPrefix(arg, "--") {
		name, _, hasValue := strings.Cut(arg, "=")
		f, ok := flags[name]
		return ok, ok && !hasValue && !isBool(f)
	}
	for i, r := range arg[1:] {
		f, ok := flags["-"+string(r)]
		if !ok {
			return false, false
		}
		if !isBool(f) { // what follows in the same word is its value
			return true, i+len(string(r)) == len(arg)-1
		}
	}
	return true, false
}
