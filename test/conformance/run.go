package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
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
	State   string        `json:",omitempty"` // passed, failed, timedout, panicked, interrupted, skipped
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
	res := &results{Whole: focus == conformance}
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
	report := filepath.Join(c.dir, part+".json")
	log, err := os.Create(filepath.Join(c.dir, part+".log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	args = append(args, "--no-color", "--silence-skips", "--timeout=3h", "--json-report="+filepath.Base(report), "--output-dir="+c.dir, b.suite, "--",
		"--kubeconfig="+c.kubeconfig, "--provider=skeleton", "--disable-log-dump", "--minStartupPods=0", "--system-pods-startup-timeout=5s",
		"--kubectl-path="+b.kubectl, fmt.Sprintf("--num-nodes=%d", nodeCount))
	cmd := c.on(ctx, "hub", b.ginkgo, args...)
	cmd.Dir = c.dir
	cmd.Env = append(cmd.Env, "KUBE_TEST_REPO_LIST="+filepath.Join(c.dir, "repositories.yaml"), "HOME="+c.dir, "TMPDIR="+c.dir)
	cmd.Stdout, cmd.Stderr = log, log
	// The suite's processes are ginkgo's children: all of them end when the run is interrupted.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	runErr := cmd.Run()
	tests, err := readReport(report)
	if err != nil {
		tail, _ := os.ReadFile(log.Name())
		return nil, fmt.Errorf("ginkgo, %s part: %w (%v)\n%s", part, err, runErr, tail[max(0, len(tail)-2000):])
	}
	return tests, nil
}

// readReport reads ginkgo's JSON report. Tests that the focus left out are not in the result.
func readReport(file string) ([]result, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var reports []types.Report
	if err := json.Unmarshal(b, &reports); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	var out []result
	for _, report := range reports {
		for _, s := range report.SpecReports {
			if s.LeafNodeType != types.NodeTypeIt || s.State == types.SpecStateSkipped && s.Failure.Message == "" {
				continue
			}
			out = append(out, result{Name: s.FullText(), State: s.State.String(), Took: s.RunTime, Failure: firstLine(s.Failure.Message)})
		}
	}
	if len(out) == 0 {
		return nil, errors.New("ginkgo's report is empty: a test ended the process that it ran in, and with it the report of all; the log says which process, run again with -focus to find the test")
	}
	slices.SortFunc(out, func(a, b result) int { return strings.Compare(a.Name, b.Name) })
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
