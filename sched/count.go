package sched

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// maxCounts bounds how many different questions about pods are kept answered. A fleet has a few for each workload that
// spreads or attracts; when they are more, the least recently asked is counted again.
const maxCounts = 256

// count holds, for one predicate, how many pods on each node satisfy it. Once asked for, it follows every change, so
// that spreading over a thousand nodes adds up numbers instead of matching the labels of ten thousand pods.
type count struct {
	match  func(*corev1.Pod) bool
	bySlot []int32
	total  int32
}

func (c *count) add(slot int, by int32) {
	for slot >= len(c.bySlot) {
		c.bySlot = append(c.bySlot, 0)
	}
	c.bySlot[slot] += by
	c.total += by
}

// matching returns the count for a predicate; equal keys must mean equal predicates.
func (s *Snapshot) matching(key string, match func(*corev1.Pod) bool) *count {
	if c := s.counts[key]; c != nil {
		if i := slices.Index(s.countsUsed, key); i < len(s.countsUsed)-1 {
			s.countsUsed = append(slices.Delete(s.countsUsed, i, i+1), key)
		}
		return c
	}
	if len(s.counts) >= maxCounts {
		oldest := s.countsUsed[0]
		s.countsUsed = s.countsUsed[1:]
		delete(s.counts, oldest)
	}
	c := &count{match: match, bySlot: make([]int32, len(s.slots))}
	for _, p := range s.pods {
		if n := s.nodes[p.node]; n != nil && match(p.Object) {
			c.add(n.slot, 1)
		}
	}
	s.counts[key] = c
	s.countsUsed = append(s.countsUsed, key)
	return c
}

func (s *Snapshot) dropCounts() {
	clear(s.counts)
	s.countsUsed = nil
}

// count follows a pod that came to a node (by 1) or left it (by -1).
func (s *Snapshot) count(n *node, p *placed, by int32) {
	for _, c := range s.counts {
		if c.match(p.Object) {
			c.add(n.slot, by)
		}
	}
	s.carry(n, p, by)
}

// perDomain sums a count over the nodes of each domain. Nodes for which eligible is false do not count; nil means all.
func (s *Snapshot) perDomain(t *topology, c *count, eligible func(*node) bool) []int32 {
	sums := make([]int32, len(t.values))
	for slot, k := range c.bySlot {
		if k == 0 || slot >= len(t.domain) || t.domain[slot] < 0 {
			continue
		}
		if n := s.slots[slot]; n != nil && (eligible == nil || eligible(n)) {
			sums[t.domain[slot]] += k
		}
	}
	return sums
}
