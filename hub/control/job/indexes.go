package job

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
)

// span is a run of completion indexes, both ends included.
type span struct{ first, last int }

// indexSet is a set of completion indexes: spans in order, which neither touch nor overlap. The zero value is the empty set.
type indexSet []span

// parseIndexes reads a set in the form of status.completedIndexes ("1,3-5,7"), without what is not below limit. What cannot be
// read is left out: validation lets none of it through.
func parseIndexes(text string, limit int) indexSet {
	var out indexSet
	for part := range strings.SplitSeq(text, ",") {
		from, to, isRange := strings.Cut(part, "-")
		first, err := strconv.Atoi(from)
		if err != nil || first < 0 {
			continue
		}
		last := first
		if isRange {
			if last, err = strconv.Atoi(to); err != nil || last < first {
				continue
			}
		}
		if first < limit {
			out = append(out, span{first, min(last, limit-1)})
		}
	}
	return out.normal()
}

// indexesOf returns the set of the given indexes, which may be in any order and repeat.
func indexesOf(list []int) indexSet {
	out := make(indexSet, len(list))
	for i, n := range list {
		out[i] = span{n, n}
	}
	return out.normal()
}

// union returns a set of its own with what is in s or in o.
func (s indexSet) union(o indexSet) indexSet { return slices.Concat(s, o).normal() }

// normal sorts and joins the spans in place.
func (s indexSet) normal() indexSet {
	slices.SortFunc(s, func(a, b span) int { return cmp.Compare(a.first, b.first) })
	out := s[:0]
	for _, next := range s {
		if n := len(out); n > 0 && next.first <= out[n-1].last+1 {
			out[n-1].last = max(out[n-1].last, next.last)
			continue
		}
		out = append(out, next)
	}
	return out
}

// size returns how many indexes are in the set.
func (s indexSet) size() int {
	n := 0
	for _, r := range s {
		n += r.last - r.first + 1
	}
	return n
}

func (s indexSet) has(i int) bool {
	at, found := slices.BinarySearchFunc(s, i, func(r span, i int) int { return cmp.Compare(r.first, i) })
	return found || at > 0 && i <= s[at-1].last
}

// common returns how many indexes are in both sets.
func (s indexSet) common(o indexSet) int {
	n := 0
	for i, j := 0, 0; i < len(s) && j < len(o); {
		n += max(0, min(s[i].last, o[j].last)-max(s[i].first, o[j].first)+1)
		if s[i].last < o[j].last {
			i++
		} else {
			j++
		}
	}
	return n
}

// missing returns the n lowest indexes below limit that are not in the set, or fewer.
func (s indexSet) missing(n, limit int) []int {
	var out []int
	next := 0
	for _, r := range append(slices.Clone(s), span{limit, limit}) {
		for ; next < min(r.first, limit) && len(out) < n; next++ {
			out = append(out, next)
		}
		next = max(next, r.last+1)
	}
	return out
}

// String returns the set in the form of status.completedIndexes: a pair of neighbours is a list, more are a range.
func (s indexSet) String() string {
	var b strings.Builder
	for i, r := range s {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Itoa(r.first))
		if r.last > r.first {
			b.WriteByte(",-"[min(1, r.last-r.first-1)])
			b.WriteString(strconv.Itoa(r.last))
		}
	}
	return b.String()
}

// noIndex is the index of a pod that has none.
const noIndex = -1

// indexOf returns a pod's completion index, or noIndex. The annotation is anybody's to write.
func indexOf(p *corev1.Pod) int {
	if n, err := strconv.Atoi(p.Annotations[batchv1.JobCompletionIndexAnnotation]); err == nil && n >= 0 {
		return n
	}
	return noIndex
}

// failuresOf returns how many pods of its index failed before a pod, and how many more whose failure its policy ignores.
func failuresOf(p *corev1.Pod) (counted, ignored int32) {
	return countIn(p, batchv1.JobIndexFailureCountAnnotation), countIn(p, batchv1.JobIndexIgnoredFailureCountAnnotation)
}

func countIn(p *corev1.Pod, annotation string) int32 {
	n, err := strconv.Atoi(p.Annotations[annotation])
	if err != nil || n < 0 || n > math.MaxInt32 {
		return 0
	}
	return int32(n)
}
