package main

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// slow is from which time on a passing test is listed: waiting for a pod's start and end should take seconds.
const slow = time.Minute

const passingFile = "passing.txt"

// evaluate prints the table, what failed and what was slow, and compares with passing.txt.
func evaluate(o options, res *results, w io.Writer) error {
	passing, err := readNames(passingFile)
	if err != nil {
		return err
	}
	listed := map[string]bool{}
	for _, n := range passing {
		listed[n] = true
	}
	var regressed, fresh []string
	for _, t := range res.Tests {
		switch {
		case t.ran() && !t.passed():
			fmt.Fprintf(w, "\n%s %s (%s)\n    %s\n", strings.ToUpper(t.State), t.Name, t.Took.Round(time.Second), t.Failure)
			if listed[t.Name] {
				regressed = append(regressed, t.Name)
			}
		case t.passed() && !listed[t.Name]:
			fresh = append(fresh, t.Name)
		}
	}
	fmt.Fprintln(w)
	printSlow(w, res)
	table(w, res, listed)
	if len(fresh) > 0 {
		fmt.Fprintf(w, "\n%d tests pass that are not in %s:\n  %s\n", len(fresh), passingFile, strings.Join(fresh, "\n  "))
	}
	if o.update {
		if err := update(o, res, listed, fresh); err != nil {
			return err
		}
	}
	if len(regressed) > 0 {
		return fmt.Errorf("%d tests passed before and fail now:\n  %s", len(regressed), strings.Join(regressed, "\n  "))
	}
	return nil
}

func printSlow(w io.Writer, res *results) {
	tests := slices.DeleteFunc(slices.Clone(res.Tests), func(t result) bool { return !t.passed() || t.Took < slow })
	slices.SortFunc(tests, func(a, b result) int { return cmp.Compare(b.Took, a.Took) })
	for _, t := range tests[:min(len(tests), 20)] {
		fmt.Fprintf(w, "slow: %s %s\n", t.Took.Round(time.Second), t.Name)
	}
}

// sums are the figures of one SIG.
type sums struct{ all, ran, passed, listed int }

func count(res *results, listed map[string]bool) map[string]*sums {
	out := map[string]*sums{}
	for _, t := range res.Tests {
		for _, key := range []string{t.sig(), "all"} {
			s := out[key]
			if s == nil {
				s = &sums{}
				out[key] = s
			}
			s.all++
			if t.ran() {
				s.ran++
			}
			if t.passed() {
				s.passed++
			}
			if listed[t.Name] {
				s.listed++
			}
		}
	}
	return out
}

func table(w io.Writer, res *results, listed map[string]bool) {
	by := count(res, listed)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "SIG\ttests\trun\tpassed\tlisted as passing\t")
	for _, sig := range sigs(by) {
		s := by[sig]
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%d\t\n", sig, s.all, s.ran, s.passed, s.listed)
	}
	t.Flush()
}

// sigs are the keys in order, the sum last.
func sigs(by map[string]*sums) []string {
	keys := slices.DeleteFunc(slices.Sorted(maps.Keys(by)), func(k string) bool { return k == "all" })
	return append(keys, "all")
}

// update adds what passes to passing.txt, and after a whole run writes docs/conformance.md. Nothing is ever taken out of
// the list here: that a test does not pass any more is for a person to decide.
func update(o options, res *results, listed map[string]bool, fresh []string) error {
	for _, n := range fresh {
		listed[n] = true
	}
	var b bytes.Buffer
	b.WriteString("# Conformance tests of Kubernetes 1.36 that pass. `make conformance UPDATE=1` adds; nothing leaves without a reason.\n")
	for _, n := range slices.Sorted(maps.Keys(listed)) {
		fmt.Fprintln(&b, n)
	}
	if err := os.WriteFile(passingFile, b.Bytes(), 0o644); err != nil {
		return err
	}
	if !res.Whole {
		return nil
	}
	return os.WriteFile(filepath.Join(o.root, "docs", "conformance.md"), page(res, listed), 0o644)
}

// page is docs/conformance.md.
func page(res *results, listed map[string]bool) []byte {
	var b bytes.Buffer
	b.WriteString(`# Conformance

How much of Kubernetes' own conformance suite (1.36) passes on a hub and two agents with real containers. Written by
` + "`make conformance UPDATE=1`" + ` after a run of the whole suite; the tests that pass are listed in
[passing.txt](../test/conformance/passing.txt), and one of them failing is an error of the build.

| SIG | tests | pass |
|---|---:|---:|
`)
	by := count(res, listed)
	for _, sig := range sigs(by) {
		fmt.Fprintf(&b, "| %s | %d | %d |\n", sig, by[sig].all, by[sig].passed)
	}
	failed := slices.DeleteFunc(slices.Clone(res.Tests), result.passed)
	if len(failed) == 0 {
		return b.Bytes()
	}
	b.WriteString("\n## What does not pass\n\nEach with the first line of its failure and the time that it took.\n\n")
	for _, t := range failed {
		state := t.State
		if state == "" {
			state = "not run"
		}
		fmt.Fprintf(&b, "- %s: %s, %s\n  `%s`\n", t.Name, state, t.Took.Round(time.Second), strings.ReplaceAll(t.Failure, "`", "'"))
	}
	return b.Bytes()
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
