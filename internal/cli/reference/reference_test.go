package reference

import (
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

type subCommand struct {
	Shared string   `help:"Common to all." placeholder:"X"`
	Own    bool     `short:"o" negatable:"" help:"Only here | there."`
	Want   string   `required:"" help:"Needed." placeholder:"W"`
	Args   []string `arg:"" optional:"" help:"Objects, <all> of them."`
}

func (*subCommand) Help() string { return "First.\n\nSecond\nline." }

type otherCommand struct {
	Shared string `help:"Common to all." placeholder:"X"`
}

func model(t *testing.T) Manual {
	t.Helper()
	var tree struct {
		Group struct {
			Sub subCommand `cmd:"" aliases:"s" help:"Does 'it' \\ at once."`
		} `cmd:"" help:"A group."`
		Other  otherCommand `cmd:"" help:".starts with a dot"`
		Hidden otherCommand `cmd:"" hidden:"" help:"Not shown."`
	}
	k, err := kong.New(&tree, kong.Name("prog"), kong.Description("Prog does. More."))
	if err != nil {
		t.Fatal(err)
	}
	return Manual{App: k.Model, FlagHelp: func(v *kong.Value) string { return v.Help }, Version: "v1", Exits: []Exit{{"0", "Done."}}, Files: []File{{"~/.prog", "Settings."}}}
}

func TestMarkdown(t *testing.T) {
	text := model(t).Markdown()
	for _, want := range []string{
		"# The prog command\n", "| [`group sub`](#prog-group-sub) |", "## prog group sub\n", "```\nprog group sub --want=W [FLAGS] [<args> ...]\n```\n\nFirst.\n\nSecond line.\n\nShort: s.\n",
		"| `-o, --[no-]own` | Only here \\| there. |", "| `args` | Objects, \\<all> of them. |", "| 0 | Done. |", "| `~/.prog` | Settings. |",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in:\n%s", want, text)
		}
	}
	if n := strings.Count(text, "--shared"); n != 1 {
		t.Errorf("a flag of all commands is described %d times", n)
	}
	if strings.Contains(text, "idden") || strings.Contains(text, "Not shown") {
		t.Error("a hidden command is shown")
	}
}

func TestMan(t *testing.T) {
	pages := model(t).Man()
	if len(pages) != 3 {
		t.Errorf("%d pages", len(pages))
	}
	sub := pages["prog-group-sub.1"]
	for _, want := range []string{
		`.TH PROG\-GROUP\-SUB 1 "" "prog v1" "prog"` + "\n", `prog\-group\-sub \- Does \(aqit\(aq \e at once` + "\n", `.B \-o, \-\-[no\-]own` + "\n", `.B \-\-shared=X` + "\n", ".PP\nSecond line.\n",
	} {
		if !strings.Contains(sub, want) {
			t.Errorf("no %q in:\n%s", want, sub)
		}
	}
	if !strings.Contains(pages["prog-other.1"], "\n\\&.starts") {
		t.Errorf("a text that begins with a dot would be an instruction:\n%s", pages["prog-other.1"])
	}
	if !strings.Contains(pages["prog.1"], ".SH FILES\n.TP\n.I ~/.prog\nSettings.\n") {
		t.Errorf("the overview does not name the files:\n%s", pages["prog.1"])
	}
	if !strings.Contains(pages["prog.1"], `.BR prog\-group\-sub (1)`) {
		t.Errorf("the overview does not name its commands:\n%s", pages["prog.1"])
	}
}
