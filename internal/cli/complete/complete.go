// Package complete finds how a command line can go on. Commands, flags and their values come from the command tree, types and names of
// objects from the server. The shells' scripts ask `petrel __complete` at each press of Tab:
//
//	petrel get pods w<Tab> ─► petrel __complete -- get pods w ─► web-1, web-2
package complete

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/alecthomas/kong"

	"petrel.dev/petrel/internal/cli/commandtree"
)

// Server answers what the command tree does not know. What it cannot find out is empty: at a prompt nobody wants an error.
type Server interface {
	Types() []string
	// Names returns the names of a type's objects, in the namespace that the command line or the kubeconfig names.
	Names(typ string) []string
	Contexts() []string // of the kubeconfig
}

// Cluster is which cluster the command line means so far; empty fields are the kubeconfig's.
type Cluster struct{ Kubeconfig, Context, Namespace string }

// Answer is how a command line can go on.
type Answer struct {
	Words []Word
	Files bool // with the name of a file
}

// Word is a whole word that fits in place of the last one, and what it means.
type Word struct{ Text, Help string }

// Print writes the form that the shells' scripts read: WORD, a tab and its meaning on a line each; ":files" stands for names of files.
func (a Answer) Print(w io.Writer) {
	if a.Files {
		fmt.Fprintln(w, ":files")
		return
	}
	for _, word := range a.Words {
		help, _, _ := strings.Cut(word.Help, "\n")
		fmt.Fprintf(w, "%s\t%s\n", word.Text, help)
	}
}

// Line completes the last of the words that stand behind the program's name; an empty one asks for all there is.
func Line(app *kong.Application, words []string, open func(Cluster) Server) Answer {
	if len(words) == 0 {
		words = []string{""}
	}
	l := read(app, words[:len(words)-1])
	l.open = open
	last := words[len(words)-1]
	a := l.complete(last)
	a.Words = slices.DeleteFunc(a.Words, func(w Word) bool { return !strings.HasPrefix(w.Text, last) })
	slices.SortStableFunc(a.Words, func(x, y Word) int { return cmp.Compare(x.Text, y.Text) })
	a.Words = slices.CompactFunc(a.Words, func(x, y Word) bool { return x.Text == y.Text })
	return a
}

// line is what the words before the last one mean.
type line struct {
	node    *kong.Node
	args    []string
	pending *kong.Flag // the last flag, when its value comes next
	ended   bool       // "--" was there
	cluster Cluster
	open    func(Cluster) Server // set before complete
}

func read(app *kong.Application, words []string) *line {
	l := &line{node: app.Node}
	for _, w := range words {
		switch {
		case l.pending != nil:
			l.set(l.pending, w)
			l.pending = nil
		case l.ended:
			l.args = append(l.args, w)
		case w == "--":
			l.ended = true
		case strings.HasPrefix(w, "-") && w != "-":
			l.flag(app, w)
		case len(l.args) == 0 && child(l.node, w) != nil:
			l.node = child(l.node, w)
		default:
			l.args = append(l.args, w)
		}
	}
	return l
}

// flag reads --name, --name=value, -n, -nvalue and -abc.
func (l *line) flag(app *kong.Application, w string) {
	name, value, hasValue := strings.Cut(w, "=")
	if strings.HasPrefix(w, "--") {
		f := l.lookup(app, func(f *kong.Flag) bool { return "--"+f.Name == name || slices.Contains(f.Aliases, name[2:]) })
		switch {
		case f == nil || f.IsBool() || f.IsCounter():
		case hasValue:
			l.set(f, value)
		default:
			l.pending = f
		}
		return
	}
	for i, r := range w[1:] {
		f := l.lookup(app, func(f *kong.Flag) bool { return f.Short == r })
		if f == nil {
			return
		}
		if f.IsBool() || f.IsCounter() {
			continue
		}
		if rest := w[1+i+len(string(r)):]; rest != "" {
			l.set(f, strings.TrimPrefix(rest, "="))
		} else {
			l.pending = f
		}
		return
	}
}

// lookup finds a flag of the command. In front of a command stand only those that choose the cluster, which many commands have.
func (l *line) lookup(app *kong.Application, is func(*kong.Flag) bool) *kong.Flag {
	if l.node.Type != kong.ApplicationNode {
		return find(l.node, is)
	}
	for _, leaf := range app.Leaves(true) {
		if f := find(leaf, func(f *kong.Flag) bool {
			return is(f) && slices.Contains(commandtree.ClusterFlags, f.Name)
		}); f != nil {
			return f
		}
	}
	return nil
}

func find(n *kong.Node, is func(*kong.Flag) bool) *kong.Flag {
	for _, f := range commandtree.Flags(n) {
		if is(f) {
			return f
		}
	}
	return nil
}

func (l *line) set(f *kong.Flag, value string) {
	switch f.Name {
	case "kubeconfig":
		l.cluster.Kubeconfig = value
	case "context":
		l.cluster.Context = value
	case "namespace":
		l.cluster.Namespace = value
	}
}

func child(n *kong.Node, name string) *kong.Node {
	for _, c := range n.Children {
		if c.Type == kong.CommandNode && (c.Name == name || slices.Contains(c.Aliases, name)) {
			return c
		}
	}
	return nil
}
