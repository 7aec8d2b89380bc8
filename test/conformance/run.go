package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/onsi/ginkgo/v2/types"
)

// results is what one run, or the list of all tests, says.
type results struct {
	Whole bool // no focus: every conformance test was run
	Tests []result
}

// result is one test. A test that was not run has no State.
type result struct {
	Name    string
	State   string        `json:",omitempty"` // passed, failed, timedout, panicked, interrupted, skipped, crashed
	Took    time.Duration `json:",omitempty"`
	Failure string        `json:",omitempty"` // first line
}

func (r result) passed() bool { return r.State == types.SpecStatePassed.String() }
func (r result) ran() bool    { return r.State != "" }

// sig is the test's SIG, such as "node".
func (r result) sig() string {
	s, _, _ := strings.Cut(strings.TrimPrefix(r.Name, "[sig-"), "]")
	return s
}

const (
	conformance = `\[Conformance\]`
	serial      = `\[Serial\]|\[Disruptive\]`
)

// runSuite runs the parallel part and then the serial one, and returns all conformance tests, those that were not run too.
func runSuite(ctx context.Context, o options, b *binaries, c *cluster) (*results, error) {
	repos := filepath.Join(c.dir, "repositories.yaml")
	if err := os.WriteFile(repos, []byte(repositories), 0o644); err != nil {
		return nil, err
	}
	all, err := ginkgo(ctx, b, c, "list", "--dry-run", "--focus="+conformance)
	if err != nil {
		return nil, err
	}
	for i := range all {
		all[i].State, all[i].Took = "", 0
	}
	focus, err := focusOf(o)
	if err != nil {
		return nil, err
	}
	re, err := regexp.Compile(focus)
	if err != nil {
		return nil, fmt.Errorf("focus %q: %w", focus, err)
	}
	isSerial := regexp.MustCompile(serial)
	var parallelN, serialN int
	for _, t := range all {
		switch {
		case !re.MatchString(t.Name):
		case isSerial.MatchString(t.Name):
			serialN++
		default:
			parallelN++
		}
	}
	if parallelN+serialN == 0 {
		return nil, fmt.Errorf("no conformance test matches %q", focus)
	}
	fmt.Printf("running %d tests %d at a time, then %d one by one\n", parallelN, o.procs, serialN)
	var ran []result
	if parallelN > 0 {
		part, err := ginkgo(ctx, b, c, "parallel", fmt.Sprintf("--procs=%d", o.procs), "--focus="+focus, "--skip="+serial)
		if err != nil {
			return nil, err
		}
		ran = append(ran, part...)
	}
	if serialN > 0 {
		part, err := ginkgo(ctx, b, c, "serial", "--focus="+serialFocus(all, re, isSerial))
		if err != nil {
			return nil, err
		}
		ran = append(ran, part...)
	}
	byName := map[string]result{}
	for _, t := range ran {
		byName[t.Name] = t
	}
	res := &results{Whole: parallelN+serialN == len(all)}
	for _, t := range all {
		if r, ok := byName[t.Name]; ok {
			t = r
		}
		res.Tests = append(res.Tests, t)
	}
	return res, ctx.Err()
}

// serialFocus names exactly the serial tests that match: ginkgo joins several focuses by "or".
func serialFocus(all []result, re, isSerial *regexp.Regexp) string {
	var names []string
	for _, t := range all {
		if re.MatchString(t.Name) && isSerial.MatchString(t.Name) {
			names = append(names, regexp.QuoteMeta(t.Name))
		}
	}
	return strings.Join(names, "|")
}

// focusOf is the regular expression for the names of the tests to run.
func focusOf(o options) (string, error) {
	if o.short {
		names, err := readNames("short.txt")
		if err != nil {
			return "", err
		}
		for i, n := range names {
			names[i] = regexp.QuoteMeta(n)
		}
		return strings.Join(names, "|"), nil
	}
	focus := conformance
	if o.focus != "" {
		focus = "(" + o.focus + ").*" + focus
	}
	if o.sig != "" {
		focus = `\[sig-` + regexp.QuoteMeta(strings.TrimPrefix(o.sig, "sig-")) + `\].*` + focus
	}
	return focus, nil
}

// ginkgo runs the suite with some arguments on the hub's machine. That tests fail is no error.
func ginkgo(ctx context.Context, b *binaries, c *cluster, part string, args ...string) ([]result, error) {
	dir := filepath.Join(c.dir, part)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(c.dir, part+".log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	args = append(args, "--no-color", "--silence-skips", "--timeout=3h", b.suite, "--", "--results-in="+dir, fmt.Sprintf("--listing=%t", part == "list"),
		"--kubeconfig="+c.kubeconfig, "--provider=skeleton", "--disable-log-dump", "--minStartupPods=0", "--system-pods-startup-timeout=5s",
		"--kubectl-path="+b.kubectl, fmt.Sprintf("--num-nodes=%d", nodeCount))
	cmd := c.on(ctx, "hub", b.ginkgo, args...)
	cmd.Dir = c.dir
	cmd.Env = append(cmd.Env, "KUBE_TEST_REPO_LIST="+filepath.Join(c.dir, "repositories.yaml"), "HOME="+c.dir)
	cmd.Stdout, cmd.Stderr = log, log
	runErr := cmd.Run()
	tests, err := readDir(dir, part)
	if err == nil && len(tests) == 0 {
		err = errors.New("no test was run")
	}
	if err != nil {
		tail, _ := os.ReadFile(log.Name())
		return nil, fmt.Errorf("ginkgo, %s part: %w (%v)\n%s", part, err, runErr, tail[max(0, len(tail)-2000):])
	}
	return tests, nil
}

// readDir reads what the suite's processes wrote. A test that started and never ended took its process down.
func readDir(dir, part string) ([]result, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.jsonl"))
	if err != nil {
		return nil, err
	}
	last := map[string]result{}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		for d := json.NewDecoder(bytes.NewReader(b)); ; {
			var r result
			if err := d.Decode(&r); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				return nil, fmt.Errorf("%s: %w", file, err)
			}
			if r.State == "passed" && r.Took == 0 && part != "list" {
				continue // of the dry run with which upstream's suite begins
			}
			if r.State == "started" {
				r.State, r.Failure = "crashed", "the test's process ended in it"
			}
			r.Failure = firstLine(r.Failure)
			last[r.Name] = r
		}
	}
	out := make([]result, 0, len(last))
	for _, name := range sortedKeys(last) {
		out = append(out, last[name])
	}
	return out, nil
}

// firstLine keeps what a person needs to recognise a failure.
func firstLine(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > 240 {
		s = s[:240] + " ..."
	}
	return s
}

func (r *results) write(file string) error {
	b, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, b, 0o644)
}

func readResults(file string) (*results, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var r results
	return &r, json.Unmarshal(b, &r)
}

// readNames reads a list of tests: a name a line, # begins a comment.
func readNames(file string) ([]string, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []string
	for s := bufio.NewScanner(f); s.Scan(); {
		if l := strings.TrimSpace(s.Text()); l != "" && !strings.HasPrefix(l, "#") {
			out = append(out, l)
		}
	}
	return out, nil
}
