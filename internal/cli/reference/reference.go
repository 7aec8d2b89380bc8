// Package reference writes the manual of a command tree: one Markdown file, or a man page for each command. Both come from the tree
// that parses the arguments, so they cannot say something else than the program does.
package reference

import (
	"fmt"
	"slices"
	"strings"

	"github.com/alecthomas/kong"

	"petrel.dev/petrel/internal/cli/commandtree"
)

// Manual is what the manual of a program is made from.
type Manual struct {
	App *kong.Application
	// FlagHelp returns the text of a flag or an argument, as --help shows it.
	FlagHelp func(*kong.Value) string
	Version  string
	Exits    []Exit // of all commands
	Files    []File // that commands read and write
}

// File is a file or a directory, and what is in it.
type File struct{ Path, Content string }

// Exit is an exit code and what it means.
type Exit struct{ Code, Meaning string }

// commands returns the commands that are shown: leaves, in the order of the tree.
func (m Manual) commands() []*kong.Node { return m.App.Leaves(true) }

// sections returns the titles of groups in their order, and the commands of each.
func (m Manual) sections() (titles []string, of map[string][]*kong.Node) {
	of = map[string][]*kong.Node{}
	for _, n := range m.commands() {
		title := "Commands"
		for at := n; at != nil; at = at.Parent {
			if at.Group != nil {
				title = strings.TrimSuffix(at.Group.Title, ":")
				break
			}
		}
		if !slices.Contains(titles, title) {
			titles = append(titles, title)
		}
		of[title] = append(of[title], n)
	}
	return titles, of
}

// common returns the flags that more than a third of the commands have with the same text, in the order of the tree: described once.
func (m Manual) common() []*kong.Flag {
	commands := m.commands()
	count := map[string]int{}
	var order []*kong.Flag
	for _, n := range commands {
		for _, f := range commandtree.Flags(n) {
			if k := key(f); count[k] == 0 {
				order = append(order, f)
			}
			count[key(f)]++
		}
	}
	return slices.DeleteFunc(order, func(f *kong.Flag) bool { return count[key(f)]*3 <= len(commands) })
}

func key(f *kong.Flag) string { return f.String() + "\x00" + f.Help }

// own returns the flags of a command that are not common.
func own(n *kong.Node, common []*kong.Flag) []*kong.Flag {
	return slices.DeleteFunc(commandtree.Flags(n), func(f *kong.Flag) bool {
		return slices.ContainsFunc(common, func(c *kong.Flag) bool { return key(c) == key(f) })
	})
}

// flagText returns a flag as one writes it: "-n, --namespace=NAME".
func flagText(f *kong.Flag) string {
	name := "--" + f.Name
	if f.Tag.Negatable != "" {
		name = "--[no-]" + f.Name
	}
	if f.Short != 0 {
		name = fmt.Sprintf("-%c, %s", f.Short, name)
	}
	if f.IsBool() || f.IsCounter() {
		return name
	}
	return name + "=" + f.FormatPlaceHolder()
}

// usage returns the line that shows how a command is written, without the program's name.
func usage(n *kong.Node) string {
	parts := []string{commandtree.Name(n)}
	for _, f := range commandtree.Flags(n) {
		if f.Required {
			parts = append(parts, f.Summary())
		}
	}
	parts = append(parts, "[FLAGS]")
	for _, p := range n.Positional {
		parts = append(parts, p.Summary())
	}
	return strings.Join(strings.Fields(strings.Join(parts, " ")), " ")
}

// detail returns what there is to say of a command beside its help, as paragraphs.
func detail(n *kong.Node) []string {
	out := paragraphs(n.Detail)
	if len(n.Aliases) > 0 {
		out = append(out, "Short: "+strings.Join(n.Aliases, ", ")+".")
	}
	return out
}

// paragraphs returns a text's paragraphs, each on one line.
func paragraphs(text string) (out []string) {
	for p := range strings.SplitSeq(text, "\n\n") {
		if p = strings.Join(strings.Fields(p), " "); p != "" {
			out = append(out, p)
		}
	}
	return out
}
