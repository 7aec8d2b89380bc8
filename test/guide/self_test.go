package guide

import (
	"strings"
	"testing"
)

// TestMatching shows what may differ between a page and what is printed, and what may not.
func TestMatching(t *testing.T) {
	for _, c := range []struct {
		want, got string
		same      bool
	}{
		{"pi1    Ready    <none>   3s    v1.36.3+petrel-dev", "pi1 Ready <none> 2m5s v1.36.3+petrel-1.2-3-gabc", true},
		{"pi1    Ready    <none>   3s", "pi1    NotReady   <none>   3s", false},
		{"hello-77d6ccbdf7-29kcv   1/1", "hello-5b8f9c4d6d-xk2vw   1/1", true},
		{"hello-77d6ccbdf7-29kcv   1/1", "hello-77d6ccbdf7-29kcv   0/1", false},
		{"edge-node", "edge-nodes", false},
		{"from 10.42.0.1:42688", "from 10.42.7.1:50123", true},
		{"at 10.42.0.1:80", "at 10.42.0.1:81", false},
		{"a\n...\nz", "a\nb\nc\nz", true},
		{"a\n...\nz", "a\nz", true},
		{"a\n...\nz", "a\nb", false},
		{"level=WARN ... no link", "level=WARN time=3 no link", true},
		{"level=WARN ... no link", "level=WARN time=3 a link", false},
		{"web imported", "importing web: 41.2 MB, 12.1 MB/s\nimporting web: 80 MB, 9 MB/s\nweb imported", true},
		{"web imported", "importing web failed\nweb imported", false},
		{"a", "a\nb", false},
		{"a\nb", "a", false},
	} {
		if got := matches(split(c.want), split(c.got), false); got != c.same {
			t.Errorf("%q and %q: %v", c.want, c.got, got)
		}
	}
	if !matches([]string{"a"}, []string{"a", "b"}, true) || matches([]string{"b"}, []string{"a", "b"}, true) {
		t.Error("what runs on prints the page's lines first, and perhaps more")
	}
	if !matchesUnordered([]string{"a", "b"}, []string{"b", "a"}) || matchesUnordered([]string{"a", "b"}, []string{"b", "b"}) {
		t.Error("a list in another order is the same list; another list is not")
	}
}

const fence = "```"

// TestParse shows what a page is taken for, and what is refused.
func TestParse(t *testing.T) {
	p, err := parse("x.md", strings.ReplaceAll(`<!-- test: continues y.md -->
Text.
<!-- test: cut pi2 -->
FENCEconsole
pi1 # petrel get nodes
NAME

$ kubectl logs -f x
line
^C
FENCE
FENCEyaml
# web.yaml
kind: Pod
FENCE
<!-- not run: needs a Raspberry Pi -->
FENCEconsole
$ reboot
FENCE
`, "FENCE", fence))
	if err != nil {
		t.Fatal(err)
	}
	if p.continues != "y.md" || len(p.steps) != 4 || len(p.notRun) != 1 {
		t.Fatalf("%+v", p)
	}
	if a := p.steps[0].action; a != (action{"cut", "pi2"}) || p.steps[0].line != 3 {
		t.Errorf("the first step is %+v", p.steps[0])
	}
	if c := p.steps[1].command; c.machine != "pi1" || c.text != "petrel get nodes" || strings.Join(c.output, "|") != "NAME|" || p.lines[c.first] != "NAME" {
		t.Errorf("the second step is %+v", c)
	}
	if c := p.steps[2].command; c.machine != computer || !c.ended || strings.Join(c.output, "|") != "line" {
		t.Errorf("the third step is %+v", c)
	}
	if m := p.steps[3].manifest; m.name != "web.yaml" || !strings.Contains(m.text, "kind: Pod") {
		t.Errorf("the fourth step is %+v", m)
	}
	for _, bad := range []string{
		"FENCEconsole\nno prompt\nFENCE", "FENCEsh\nls\nFENCE", "FENCEtext\n$ ls\nFENCE", "FENCEconsole\n$ ls", "Do:\n\n    petrel up", "<!-- test: jump pi1 -->",
		"FENCEconsole\n$ ls -w\na\n^C\nb\nFENCE",
	} {
		if _, err := parse("x.md", strings.ReplaceAll(bad, "FENCE", fence)); err == nil || !strings.HasPrefix(err.Error(), "x.md:") {
			t.Errorf("%q is taken: %v", bad, err)
		}
	}
}
