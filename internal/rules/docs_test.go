package rules

import (
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// pagesOf reads all pages, by their slash paths from the module's root.
func pagesOf(t *testing.T) map[string]string {
	t.Helper()
	pages := map[string]string{}
	for _, rel := range sources(t, ".md") {
		b, err := os.ReadFile(filepath.Join("..", "..", filepath.FromSlash(rel)))
		if err != nil {
			t.Fatal(err)
		}
		pages[rel] = string(b)
	}
	if len(pages) < 20 {
		t.Fatalf("only %d pages found", len(pages))
	}
	return pages
}

// anchors are the names that a page's headings are linked by, as GitHub makes them.
func anchors(text string) map[string]bool {
	all := map[string]bool{}
	dropped := regexp.MustCompile(`[^\p{L}\p{N} _-]`)
	code := false
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "```") {
			code = !code
		}
		heading := strings.TrimLeft(line, "#")
		if code || heading == line || !strings.HasPrefix(heading, " ") {
			continue
		}
		name := strings.ReplaceAll(dropped.ReplaceAllString(strings.ToLower(strings.TrimSpace(heading)), ""), " ", "-")
		all[name] = true
	}
	return all
}

var mdLink = regexp.MustCompile(`\]\(([^)#:\s]*)(#[^)\s]*)?\)`)

// TestLinksLead exists because a page that points nowhere is worse than no link.
func TestLinksLead(t *testing.T) {
	pages, seen := pagesOf(t), 0
	for rel, text := range pages {
		for _, m := range mdLink.FindAllStringSubmatch(text, -1) {
			to, anchor := rel, strings.TrimPrefix(m[2], "#")
			if m[1] != "" {
				to = path.Join(path.Dir(rel), m[1])
			}
			seen++
			if _, err := os.Stat(filepath.Join("..", "..", filepath.FromSlash(to))); err != nil {
				t.Errorf("%s links to %s: %v", rel, m[1], err)
			} else if anchor != "" && !anchors(pages[to])[anchor] {
				t.Errorf("%s links to %s%s: there is no such heading", rel, m[1], m[2])
			}
		}
	}
	if seen < 200 {
		t.Fatalf("only %d links were read", seen)
	}
}

// TestAnchors shows which names headings have.
func TestAnchors(t *testing.T) {
	got := anchors("# One\ntext\n```\n# two\n```\n## A node is `NotReady`, or (gone)\n#!no\n")
	for _, want := range []string{"one", "a-node-is-notready-or-gone"} {
		if !got[want] {
			t.Errorf("no %q in %v", want, got)
		}
	}
	if len(got) != 2 {
		t.Errorf("%v", got)
	}
}

// TestPagesAreFound exists because a page that no index has is read by nobody.
func TestPagesAreFound(t *testing.T) {
	pages := pagesOf(t)
	index := pages["docs/README.md"]
	for rel := range pages {
		name, ok := strings.CutPrefix(rel, "docs/")
		if ok && name != "README.md" && !strings.HasPrefix(name, "adr/") && !strings.Contains(index, "]("+name+")") {
			t.Errorf("docs/README.md does not lead to %s", rel)
		}
	}
	if !strings.Contains(pages["README.md"], "](docs/README.md)") {
		t.Error("README.md does not lead to docs/README.md")
	}
}

// commandLine finds commands in the text of pages: in `code`, and after a prompt.
var commandLine = regexp.MustCompile("(?m)(?:`|(?:^|^pi\\d )[$#] |^pi\\d # |\\$\\(|&& |root@\\w+ )(?:\\./)?petrel ([^`|>;)\\n]+)")

// TestCommandsExist exists because a command or a flag that is renamed stays in the text of pages, where no test runs it. It compares
// them with docs/cli.md, which is made of the program.
func TestCommandsExist(t *testing.T) {
	pages, seen := pagesOf(t), 0
	flags := commandFlags(t, pages["docs/cli.md"])
	for rel, text := range pages {
		if rel == "docs/cli.md" {
			continue
		}
		for _, m := range commandLine.FindAllStringSubmatch(text, -1) {
			seen++
			if problem := unknown(flags, strings.Fields(m[1])); problem != "" {
				t.Errorf("%s: petrel %s: %s", rel, m[1], problem)
			}
		}
	}
	if seen < 200 {
		t.Fatalf("only %d commands were read", seen)
	}
}

// commandFlags are the flags of each command, its words joined by spaces. The flags of most commands are those of "".
func commandFlags(t *testing.T, reference string) map[string][]string {
	t.Helper()
	flags, of := map[string][]string{}, ""
	flag := regexp.MustCompile("^\\| `(?:(-\\w), )?--(\\[no-\\])?([\\w-]+)")
	for line := range strings.Lines(reference) {
		line = strings.TrimSpace(line)
		if name, ok := strings.CutPrefix(line, "## "); ok {
			of = strings.TrimPrefix(strings.TrimPrefix(name, "petrel"), " ")
			if !strings.HasPrefix(name, "petrel") {
				of = ""
			}
			flags[of] = append(flags[of], "")
		}
		if m := flag.FindStringSubmatch(line); m != nil {
			flags[of] = append(flags[of], "--"+m[3])
			if m[1] != "" {
				flags[of] = append(flags[of], m[1])
			}
			if m[2] != "" {
				flags[of] = append(flags[of], "--no-"+m[3])
			}
		}
	}
	if len(flags) < 50 {
		t.Fatalf("only %d commands were read from docs/cli.md", len(flags))
	}
	return flags
}

// hidden are commands that the reference does not list, for tests and the demonstration.
var hidden = []string{"serve", "fetch", "docs", "image build-hello", "help"}

// unknown says what of a command line there is not; "" when all is known. A word in capitals stands for any.
func unknown(flags map[string][]string, words []string) string {
	for len(words) > 0 && strings.HasPrefix(words[0], "--") { // before the command
		known := slices.Contains(flags[""], strings.SplitN(words[0], "=", 2)[0])
		if words[0] == "--help" || words[0] == "--version" {
			return ""
		}
		if !known {
			return "no such flag before a command"
		}
		if strings.Contains(words[0], "=") {
			words = words[1:]
		} else {
			words = words[min(2, len(words)):]
		}
	}
	name, rest := "", words
	for i := min(2, len(words)); i > 0; i-- {
		n := strings.TrimRight(strings.Join(words[:i], " "), ",.:")
		if _, ok := flags[n]; ok || slices.Contains(hidden, n) {
			name, rest = n, words[i:]
			break
		}
	}
	if slices.Contains(hidden, name) || len(words) > 0 && words[0] == strings.ToUpper(words[0]) {
		return ""
	}
	if name == "" {
		for n := range flags {
			if len(words) > 0 && strings.HasPrefix(n, words[0]+" ") { // petrel rollout pause|resume, petrel top: one of several
				return ""
			}
		}
		return "there is no such command"
	}
	for _, w := range rest {
		if w == "--" {
			break
		}
		f := strings.TrimRight(strings.SplitN(w, "=", 2)[0], ",.:")
		if strings.HasPrefix(f, "--") && f != "--help" && !slices.Contains(flags[name], f) && !slices.Contains(flags[""], f) {
			return "it has no flag " + f
		}
	}
	return ""
}

// TestUnknownCommands shows what TestCommandsExist finds.
func TestUnknownCommands(t *testing.T) {
	flags := map[string][]string{"": {"--kubeconfig"}, "get": {"-w", "--watch"}, "token create": {"--uses"}}
	for line, ok := range map[string]bool{
		"get pods -w": true, "get pods --watch --kubeconfig f": true, "token create --uses 3": true, "--kubeconfig f get pods": true, "get x -- --y": true,
		"gte pods": false, "get pods --uses": false, "token create --use 3": false,
	} {
		if got := unknown(flags, strings.Fields(line)); (got == "") != ok {
			t.Errorf("petrel %s: %q", line, got)
		}
	}
}
