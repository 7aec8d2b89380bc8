package reference

import (
	"fmt"
	"strings"

	"github.com/alecthomas/kong"

	"petrel.dev/petrel/internal/cli/commandtree"
)

// Markdown returns the whole manual as one document.
func (m Manual) Markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# The %s command\n\n", m.App.Name)
	for _, p := range paragraphs(m.App.Help) {
		fmt.Fprintf(&b, "%s\n\n", p)
	}
	titles, of := m.sections()
	for _, t := range titles {
		fmt.Fprintf(&b, "%s:\n\n| command | |\n|---|---|\n", t)
		for _, n := range of[t] {
			fmt.Fprintf(&b, "| [`%s`](#%s) | %s |\n", commandtree.Name(n), anchor(m, n), cell(n.Help))
		}
		b.WriteString("\n")
	}
	b.WriteString("## Exit codes\n\n| code | meaning |\n|---|---|\n")
	for _, e := range m.Exits {
		fmt.Fprintf(&b, "| %s | %s |\n", e.Code, cell(e.Meaning))
	}
	b.WriteString("\n## Files\n\n| file | |\n|---|---|\n")
	for _, f := range m.Files {
		fmt.Fprintf(&b, "| `%s` | %s |\n", f.Path, cell(f.Content))
	}
	common := m.common()
	b.WriteString("\n## Flags of most commands\n\n")
	m.flagTable(&b, common)
	for _, n := range m.commands() {
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n```\n%s %s\n```\n", title(m, n), n.Help, m.App.Name, usage(n))
		for _, p := range detail(n) {
			fmt.Fprintf(&b, "\n%s\n", p)
		}
		if len(n.Positional) > 0 {
			b.WriteString("\n| argument | |\n|---|---|\n")
			for _, p := range n.Positional {
				fmt.Fprintf(&b, "| `%s` | %s |\n", p.Name, cell(m.FlagHelp(p)))
			}
		}
		if f := own(n, common); len(f) > 0 {
			b.WriteString("\n")
			m.flagTable(&b, f)
		}
	}
	return b.String()
}

func (m Manual) flagTable(b *strings.Builder, flags []*kong.Flag) {
	b.WriteString("| flag | |\n|---|---|\n")
	for _, f := range flags {
		fmt.Fprintf(b, "| `%s` | %s |\n", strings.ReplaceAll(flagText(f), "|", `\|`), cell(m.FlagHelp(f.Value)))
	}
}

func title(m Manual, n *kong.Node) string { return m.App.Name + " " + commandtree.Name(n) }

// anchor returns the fragment that GitHub makes of a heading.
func anchor(m Manual, n *kong.Node) string {
	return strings.ReplaceAll(strings.ToLower(title(m, n)), " ", "-")
}

// cell keeps a text inside its cell of a table, and what looks like a tag readable.
func cell(text string) string {
	return strings.NewReplacer("|", `\|`, "<", `\<`, "\n", " ").Replace(text)
}
