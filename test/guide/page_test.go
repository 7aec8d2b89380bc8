package guide

import (
	"fmt"
	"path"
	"regexp"
	"strings"
)

// page is what a file shows, in its order.
type page struct {
	file      string // slash path from the module's root
	lines     []string
	continues string // base name of the page whose machines it takes; "" for machines of its own
	steps     []step
	notRun    []string // the reasons
}

// step is one thing that is done; exactly one of the last three is set.
type step struct {
	line int // of the file, from 1
	action
	*command
	*manifest
}

// action is what the reader does by hand.
type action struct{ what, machine string }

// command is a line after a prompt, with what it prints.
type command struct {
	machine string
	text    string
	output  []string
	first   int  // index in page.lines of the first line of output
	ended   bool // by ^C
}

// manifest is a block of YAML.
type manifest struct {
	name string // "" when the page names no file
	text string
}

var (
	prompt  = regexp.MustCompile(`^(?:(pi\d) # |\$ )(.+)$`)
	comment = regexp.MustCompile(`^<!-- (test|not run): (.+) -->$`)
)

// computer is the name of the machine at which the reader sits.
const computer = "computer"

// parse reads a page. Whatever is not of the forms that the package's documentation lists is an error.
func parse(file, text string) (*page, error) {
	p := &page{file: file, lines: strings.Split(text, "\n")}
	skip := ""
	for i := 0; i < len(p.lines); i++ {
		line := p.lines[i]
		bad := func(format string, a ...any) error {
			return fmt.Errorf("%s:%d: %s", file, i+1, fmt.Sprintf(format, a...))
		}
		if m := comment.FindStringSubmatch(line); m != nil {
			f := strings.Fields(m[2])
			switch {
			case m[1] == "not run":
				skip = m[2]
			case f[0] == "continues" && len(f) == 2:
				p.continues = f[1]
			case len(f) == 2 && (f[0] == "unplug" || f[0] == "plug" || f[0] == "cut" || f[0] == "boot"):
				p.steps = append(p.steps, step{line: i + 1, action: action{f[0], f[1]}})
			default:
				return nil, bad("no such instruction: %s", m[2])
			}
			continue
		}
		if strings.HasPrefix(line, "    ") && i > 0 && p.lines[i-1] == "" {
			return nil, bad("code that is indented is not run: write a block with ```")
		}
		language, fence := strings.CutPrefix(line, "```")
		if !fence {
			continue
		}
		start := i + 1
		for i++; i < len(p.lines) && p.lines[i] != "```"; i++ {
		}
		if i == len(p.lines) {
			return nil, bad("a block without an end")
		}
		if skip != "" {
			p.notRun, skip = append(p.notRun, skip), ""
			continue
		}
		if err := p.block(language, start, i); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// block reads the lines of a block, p.lines[from:to].
func (p *page) block(language string, from, to int) error {
	lines := p.lines[from:to]
	bad := func(i int, what string) error { return fmt.Errorf("%s:%d: %s", p.file, from+i+1, what) }
	switch language {
	case "console":
		for i, line := range lines {
			if m := prompt.FindStringSubmatch(line); m != nil {
				c := &command{machine: m[1], text: m[2], first: from + i + 1}
				if c.machine == "" {
					c.machine = computer
				}
				p.steps = append(p.steps, step{line: from + i + 1, command: c})
				continue
			}
			if i == 0 {
				return bad(i, "a block of the language console begins with a prompt")
			}
			c := p.steps[len(p.steps)-1].command
			if c.ended {
				return bad(i, "there is output after ^C")
			}
			if c.ended = line == "^C"; !c.ended {
				c.output = append(c.output, line)
			}
		}
	case "yaml":
		m := &manifest{text: strings.Join(lines, "\n") + "\n"}
		if name, ok := strings.CutPrefix(lines[0], "# "); ok && path.Ext(name) == ".yaml" && !strings.Contains(name, " ") {
			m.name = name
		}
		p.steps = append(p.steps, step{line: from + 1, manifest: m})
	case "text":
		for i, line := range lines {
			if prompt.MatchString(line) {
				return bad(i, "a command in a block of text is not run: write ```console")
			}
		}
	default:
		return bad(-1, "the language is none of console, yaml and text")
	}
	return nil
}
