package main

import (
	"strings"

	"github.com/alecthomas/kong"
)

// flagsFirst moves a command's flags before its other arguments. People write `get pod -n web web-1` and
// `label pods -l app=web tier=front`; the parser takes a list of arguments as ended by the first flag within it.
// What it does not understand it leaves as it is, for the parser to name.
func flagsFirst(app *kong.Application, args []string) []string {
	node, depth := app.Node, 0
	for depth < len(args) {
		child := childOf(node, args[depth])
		if child == nil {
			break
		}
		node, depth = child, depth+1
	}
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
			if !known {
				return args
			}
			first = append(first, a)
			if takesNext && i+1 < len(args) {
				i++
				first = append(first, args[i])
			}
		}
	}
	return append(append(append([]string{}, args[:depth]...), first...), rest...)
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
