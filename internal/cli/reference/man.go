package reference

import (
	"fmt"
	"strings"

	"github.com/alecthomas/kong"

	"petrel.dev/petrel/internal/cli/commandtree"
)

// Man returns the man pages by their file names: petrel.1, and petrel-get.1 for each command. They carry no date, so that the same
// program has the same pages.
func (m Manual) Man() map[string]string {
	pages := map[string]string{m.App.Name + ".1": m.overview()}
	common := m.common()
	for _, n := range m.commands() {
		name := pageName(m, n)
		pages[name+".1"] = m.page(name, n, common)
	}
	return pages
}

func pageName(m Manual, n *kong.Node) string { return strings.ReplaceAll(title(m, n), " ", "-") }

func (m Manual) header(b *strings.Builder, name, summary string) {
	fmt.Fprintf(b, ".TH %s 1 \"\" \"%s %s\" \"%s\"\n.SH NAME\n%s \\- %s\n", roff(strings.ToUpper(name)), roff(m.App.Name), roff(m.Version), roff(m.App.Name),
		roff(name), roff(strings.TrimSuffix(summary, ".")))
}

func (m Manual) overview() string {
	var b strings.Builder
	p := paragraphs(m.App.Help)
	summary := ""
	if len(p) > 0 {
		summary, _, _ = strings.Cut(p[0], ". ")
	}
	m.header(&b, m.App.Name, summary)
	fmt.Fprintf(&b, ".SH SYNOPSIS\n.B %s\nCOMMAND [FLAGS] [ARGUMENTS]\n.SH DESCRIPTION\n", roff(m.App.Name))
	for i, text := range p {
		if i > 0 {
			b.WriteString(".PP\n")
		}
		b.WriteString(roff(text) + "\n")
	}
	titles, of := m.sections()
	for _, t := range titles {
		fmt.Fprintf(&b, ".SH %s\n", roff(strings.ToUpper(t)))
		for _, n := range of[t] {
			fmt.Fprintf(&b, ".TP\n.BR %s (1)\n%s\n", roff(pageName(m, n)), roff(n.Help))
		}
	}
	m.options(&b, "FLAGS OF MOST COMMANDS", m.common())
	m.exits(&b)
	b.WriteString(".SH FILES\n")
	for _, f := range m.Files {
		fmt.Fprintf(&b, ".TP\n.I %s\n%s\n", roff(f.Path), roff(f.Content))
	}
	return b.String()
}

func (m Manual) page(name string, n *kong.Node, common []*kong.Flag) string {
	var b strings.Builder
	m.header(&b, name, n.Help)
	fmt.Fprintf(&b, ".SH SYNOPSIS\n.B %s\n%s\n.SH DESCRIPTION\n%s\n", roff(m.App.Name), roff(usage(n)), roff(n.Help))
	for _, p := range detail(n) {
		fmt.Fprintf(&b, ".PP\n%s\n", roff(p))
	}
	if len(n.Positional) > 0 {
		b.WriteString(".SH ARGUMENTS\n")
		for _, p := range n.Positional {
			fmt.Fprintf(&b, ".TP\n.I %s\n%s\n", roff(p.Name), roff(m.FlagHelp(p)))
		}
	}
	all := own(n, common)
	for _, f := range commandtree.Flags(n) {
		for _, c := range common {
			if key(c) == key(f) {
				all = append(all, f)
			}
		}
	}
	m.options(&b, "FLAGS", all)
	m.exits(&b)
	fmt.Fprintf(&b, ".SH SEE ALSO\n.BR %s (1)\n", roff(m.App.Name))
	return b.String()
}

func (m Manual) options(b *strings.Builder, heading string, flags []*kong.Flag) {
	fmt.Fprintf(b, ".SH %s\n", heading)
	for _, f := range flags {
		fmt.Fprintf(b, ".TP\n.B %s\n%s\n", roff(flagText(f)), roff(m.FlagHelp(f.Value)))
	}
}

func (m Manual) exits(b *strings.Builder) {
	b.WriteString(".SH EXIT STATUS\n")
	for _, e := range m.Exits {
		fmt.Fprintf(b, ".TP\n.B %s\n%s\n", roff(e.Code), roff(e.Meaning))
	}
}

// roff escapes a text: no character of it is an instruction to the formatter, and a dash stays the one that a shell accepts.
func roff(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`, `"`, `\(dq`, "'", `\(aq`, "`", `\(ga`).Replace(text)
	if strings.HasPrefix(text, ".") {
		text = `\&` + text
	}
	return text
}
