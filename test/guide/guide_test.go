package guide

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"petrel.dev/petrel/test/harness"
)

var update = flag.Bool("update", false, "write what the commands of the pages print into the pages")

// mostNotRun is how many blocks of all pages may be there without being run.
const mostNotRun = 12

// pages reads README.md and docs/guide.
func pages(t *testing.T) map[string]*page {
	t.Helper()
	files, err := filepath.Glob("../../docs/guide/*.md")
	if err != nil || len(files) == 0 {
		t.Fatal("no pages: ", err)
	}
	all := map[string]*page{}
	for _, file := range append(files, "../../README.md") {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		p, err := parse(strings.TrimPrefix(filepath.ToSlash(file), "../../"), string(b))
		if err != nil {
			t.Fatal(err)
		}
		all[filepath.Base(file)] = p
	}
	return all
}

// TestNotRun counts what is shown without being run, so that it stays the exception.
func TestNotRun(t *testing.T) {
	n := 0
	for _, p := range pages(t) {
		for _, reason := range p.notRun {
			n++
			t.Logf("%s: %s", p.file, reason)
		}
	}
	if n > mostNotRun {
		t.Errorf("%d blocks of the pages are not run (limit %d)", n, mostNotRun)
	}
}

// TestPages runs README.md and the pages of docs/guide.
func TestPages(t *testing.T) {
	all := pages(t)
	for name, p := range all {
		if p.continues != "" && (all[p.continues] == nil || all[p.continues].continues != "") {
			t.Fatalf("%s continues %s, which is no page with machines of its own", name, p.continues)
		}
	}
	for name, p := range all {
		if p.continues != "" || len(p.steps) == 0 {
			continue
		}
		var after []string
		for other, o := range all {
			if o.continues == name {
				after = append(after, other)
			}
		}
		slices.Sort(after)
		t.Run(strings.TrimSuffix(name, ".md"), func(t *testing.T) {
			t.Parallel()
			s := newSite(t, strings.TrimSuffix(name, ".md")[:4])
			t.Cleanup(s.close)
			if !(&reader{t: t, site: s, page: p}).read() {
				return
			}
			for _, other := range after {
				t.Run(strings.TrimSuffix(other, ".md"), func(t *testing.T) { (&reader{t: t, site: s, page: all[other]}).read() })
			}
		})
	}
}

// reader does what a page shows.
type reader struct {
	t    *testing.T
	site *site
	page *page
	// found is what commands have printed that is not what the page says, by the index of the command's first line of output.
	found map[int]found
}

type found struct{ lines, instead []string }

// read does all of the page, and reports whether it went as the page says.
func (r *reader) read() bool {
	r.found = map[int]found{}
	before := r.site.settled(r.t)
	for _, s := range r.page.steps {
		ok := true
		switch {
		case s.command != nil:
			ok = r.command(s.line, s.command)
		case s.manifest != nil:
			ok = r.manifest(s.line, s.manifest)
		default:
			r.act(s.action)
		}
		if !ok && !*update {
			return false
		}
	}
	if before != "" && !*update {
		// What is being deleted may take its time.
		harness.Eventually(r.t, 30*time.Second, r.page.file+" leaves nothing behind", func() error {
			if d := cmp.Diff(before, r.site.objects()); d != "" {
				return fmt.Errorf("objects that were there before (-) and are now (+):\n%s", d)
			}
			return nil
		})
	}
	if *update && len(r.found) > 0 {
		r.write()
	}
	return !r.t.Failed()
}

func (r *reader) act(a action) {
	r.t.Helper()
	m := r.site.machines[a.machine]
	switch a.what {
	case "unplug":
		m.lan.Unplug(r.t)
	case "plug":
		m.lan.Plug(r.t)
	case "cut":
		m.cut()
	case "boot":
		m.boot(r.t)
	}
}

// looks are commands that change nothing, which may come before what they look at has settled.
var looks = regexp.MustCompile(`^petrel --kubeconfig \S+ get\b|^petrel rollout status .* --no-watch|^(petrel|kubectl) (get|describe|logs|events|top|exec|diff|token list|image list)\b|^(curl|ls|cat|journalctl|grep)\b`)

// runsOn are commands that run until they are ended.
var runsOn = regexp.MustCompile(`^(\./)?petrel (up|hub|agent|port-forward)\b|^(petrel|kubectl) (get|logs|top).* (-w|-f|--watch|--follow)\b`)

// A join token that is printed, and the beginning of one in a command, which stands for the one that was printed last.
var (
	token       = regexp.MustCompile(`^petrel1\.[\w-]+\n$`)
	tokensBegin = regexp.MustCompile(`petrel1\.\w+\.\.\.`)
)

var exports = regexp.MustCompile(`^export (\w+=\S+)$`)

// command runs one command, until it prints what the page says or time is over.
func (r *reader) command(line int, c *command) bool {
	m := r.site.machines[c.machine]
	if remote := ssh.FindStringSubmatch(c.text); remote != nil {
		return r.ssh(line, m, remote)
	}
	if e := exports.FindStringSubmatch(c.text); e != nil {
		m.env = append(m.env, e[1])
		return true
	}
	want := slices.Clone(c.output)
	for len(want) > 0 && want[len(want)-1] == "" { // before the next prompt
		want = want[:len(want)-1]
	}
	text := tokensBegin.ReplaceAllString(c.text, r.site.token)
	if counts.MatchString(c.text) {
		r.site.settled(r.t)
	}
	var got []string
	var err error
	var same bool
	if runsOn.MatchString(c.text) {
		got, same = r.start(m, c, text, want)
	} else {
		got, err, same = r.run(m, text, want)
	}
	if !same {
		if *update {
			r.found[c.first] = found{lines: want, instead: got}
			return true
		}
		r.t.Errorf("%s:%d: %s\nprints (+) what the page does not say (-):\n%s%v", r.page.file, line, c.text, cmp.Diff(normalAll(want), normalAll(got)), err)
	}
	return same
}

// counts are commands that print what there is at that moment. A reader's last command is longer ago than a test's, and what it has deleted is gone.
var counts = regexp.MustCompile(`^(petrel|kubectl) drain\b`)

// ssh are commands that the computer runs on another machine, and the file in its home directory that the output goes to.
var ssh = regexp.MustCompile(`^ssh root@(pi\d) ([^>]+) > ~/(\S+)$`)

func (r *reader) ssh(line int, m *machine, c []string) bool {
	out, err := r.site.machines[c[1]].run(c[2])
	if err == nil {
		err = os.WriteFile(filepath.Join(m.disk, "root", c[3]), []byte(out), 0o600)
	}
	if err != nil {
		r.t.Errorf("%s:%d: %v: %s", r.page.file, line, err, out)
	}
	return err == nil
}

// patience is how long a command may need until it prints what the page says.
func patience() time.Duration {
	if *update {
		return 8 * time.Second
	}
	return 2 * time.Minute // it only bounds a failing test, also on a busy machine
}

// run runs a command that ends. One that fails has to say so in its last line, as the page shows it.
func (r *reader) run(m *machine, text string, want []string) (got []string, err error, same bool) {
	for deadline := time.Now().Add(patience()); ; time.Sleep(300 * time.Millisecond) {
		var out string
		out, err = m.run(text)
		got = split(out)
		if token.MatchString(out) {
			r.site.token = strings.TrimSpace(out)
		}
		same = (matches(want, got, false) || looks.MatchString(text) && matchesUnordered(want, got)) && (err != nil) == fails(want)
		if same || !looks.MatchString(text) || time.Now().After(deadline) {
			return got, err, same
		}
	}
}

// failed is how a line begins by which a command says that it has failed.
var failed = regexp.MustCompile(`^(petrel|curl|bash|error): |^Error from server`)

func fails(output []string) bool {
	for _, l := range output {
		if failed.MatchString(l) {
			return true
		}
	}
	return false
}

// start starts a command that runs on, and waits until it has printed what the page says.
func (r *reader) start(m *machine, c *command, text string, want []string) (got []string, same bool) {
	j := m.start(r.t, text)
	for deadline := time.Now().Add(patience()); ; time.Sleep(200 * time.Millisecond) {
		got = split(j.Out.String())
		same = matches(want, got, true)
		if same || time.Now().After(deadline) {
			break
		}
	}
	if c.ended {
		m.interrupt(j)
		m.jobs = slices.DeleteFunc(m.jobs, func(o *harness.Process) bool { return o == j })
	}
	return got, same
}

func split(out string) []string {
	if out = strings.TrimRight(out, "\n"); out == "" {
		return nil
	}
	lines := strings.Split(out, "\n")
	for i, l := range lines {
		lines[i] = strings.TrimRight(l, " ")
	}
	return lines
}

// manifest puts a file where the page says, and has the server check objects.
func (r *reader) manifest(line int, f *manifest) bool {
	name := f.name
	if name == "" {
		name = fmt.Sprintf("block-%d.yaml", line)
	}
	for _, m := range r.site.machines {
		to := filepath.Join(m.disk, "root", name)
		if rest, ok := strings.CutPrefix(name, "/etc/"); ok {
			to = filepath.Join(m.disk, "etc", rest)
		}
		if m.init == nil {
			continue
		}
		err := os.MkdirAll(filepath.Dir(to), 0o755)
		if err == nil {
			err = os.WriteFile(to, []byte(f.text), 0o600)
		}
		if err != nil {
			r.t.Fatal(err)
		}
	}
	if !strings.Contains("\n"+f.text, "\nkind: ") || strings.HasPrefix(name, "/etc/") { // a program's settings
		return true
	}
	out, err := r.site.machines["pi1"].run("/root/petrel apply --dry-run=server -f " + name)
	if err != nil {
		r.t.Errorf("%s:%d: the server refuses this: %s", r.page.file, line, out)
	}
	return err == nil
}

// write puts what was printed into the page.
func (r *reader) write() {
	var out []string
	for i := 0; i < len(r.page.lines); i++ {
		if f, ok := r.found[i]; ok {
			out = append(out, f.instead...)
			i += len(f.lines)
		}
		out = append(out, r.page.lines[i])
	}
	if err := os.WriteFile("../../"+r.page.file, []byte(strings.Join(out, "\n")), 0o644); err != nil {
		r.t.Fatal(err)
	}
}
