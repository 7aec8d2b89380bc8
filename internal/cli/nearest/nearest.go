// Package nearest finds what a mistyped command, type or name was meant to be. It is asked on the way to an error message only.
package nearest

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// most is how many suggestions a message can carry and still be read.
const most = 3

// Error is an error with a suggestion. The suggestion may need a request, so it is made when the error is shown: an error that
// a command ignores (--ignore-not-found, wait --for=delete) costs nothing.
type Error struct {
	Err  error
	Hint func() string // empty: nothing is near
}

// Error implements error, without the suggestion.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the error that the suggestion belongs to.
func (e *Error) Unwrap() error { return e.Err }

// Hint returns the end of an error message, `; did you mean "pods"?`, or nothing when no name is near.
func Hint(typed string, names []string) string {
	spellings := make([][]string, len(names))
	for i, n := range names {
		spellings[i] = []string{n}
	}
	return hint(typed, spellings)
}

// Kinds returns what Hint does for a resource type. Plural, singular and short names are compared, the plural is suggested.
func Kinds(typed string, lists []*metav1.APIResourceList) string {
	typed, _, _ = strings.Cut(typed, ".") // the group of deployments.apps
	var spellings [][]string
	for _, l := range lists {
		for _, r := range l.APIResources {
			if !strings.Contains(r.Name, "/") {
				spellings = append(spellings, append([]string{r.Name, r.SingularName}, r.ShortNames...))
			}
		}
	}
	return hint(typed, spellings)
}

func hint(typed string, spellings [][]string) string {
	found := to(typed, spellings)
	if len(found) == 0 {
		return ""
	}
	for i, f := range found {
		found[i] = fmt.Sprintf("%q", f)
	}
	text := found[len(found)-1]
	if len(found) > 1 {
		text = strings.Join(found[:len(found)-1], ", ") + " or " + text
	}
	return "; did you mean " + text + "?"
}

// sameStart reports whether both begin with the same letter.
func sameStart(typed, s string) bool {
	a, _ := utf8.DecodeRuneInString(typed)
	b, _ := utf8.DecodeRuneInString(strings.ToLower(s))
	return a == b
}

// to returns the first spelling of each candidate that is near, the nearest first: a mistake in each three characters at most, or the
// beginning of a longer name, as that of a Deployment is of its pods'.
func to(typed string, candidates [][]string) []string {
	type near struct {
		name     string
		distance int
	}
	typed = strings.ToLower(typed)
	length := utf8.RuneCountInString(typed)
	allowed := min(length/3, 3)
	if length == 2 { // gt: of so little the first letter is taken to be right
		allowed = 1
	}
	var found []near
	for _, spellings := range candidates {
		best := allowed + 1
		for _, s := range spellings {
			if s == "" || length == 2 && !sameStart(typed, s) {
				continue
			}
			best = min(best, distance(typed, strings.ToLower(s)))
		}
		if best > allowed && (length < 2 || !strings.HasPrefix(spellings[0], typed)) {
			continue
		}
		found = append(found, near{spellings[0], best})
	}
	slices.SortFunc(found, func(a, b near) int {
		return cmp.Or(cmp.Compare(a.distance, b.distance), strings.Compare(a.name, b.name))
	})
	found = slices.Compact(found) // one type in two groups
	var names []string
	for _, f := range found[:min(len(found), most)] {
		names = append(names, f.name)
	}
	return names
}

// distance counts the mistakes between two words: a character too many, missing, another one, or two neighbours swapped (the optimal
// string alignment distance). Words much longer than names can be (253 bytes) are not compared.
func distance(a, b string) int {
	x, y := []rune(a), []rune(b)
	if len(x) > 300 || len(y) > 300 {
		return max(len(x), len(y))
	}
	var before []int // the row before last
	last := make([]int, len(y)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(x); i++ {
		row := make([]int, len(y)+1)
		row[0] = i
		for j := 1; j <= len(y); j++ {
			cost := 1
			if x[i-1] == y[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && x[i-1] == y[j-2] && x[i-2] == y[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last = last, row
	}
	return last[len(y)]
}
