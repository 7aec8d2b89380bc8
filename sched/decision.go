package sched

import (
	"fmt"
	"sort"
	"strings"
)

// Decision is what became of a pod: a node, or the reasons why there is none.
type Decision struct {
	Node string // "" when no node can take the pod
	// Feasible is how many nodes passed every filter.
	Feasible int
	// Nodes is how many there are.
	Nodes int
	// Reasons counts, when Node is "", why nodes were refused. One node may count under several.
	Reasons map[string]int
	// Unready is, when not "", why the pod could go to no node, whatever the nodes are.
	Unready string
	// Claims are those that get their volume with the pod, when Node is not "".
	Claims []ClaimPlan
}

// Fits reports whether a node was found.
func (d Decision) Fits() bool { return d.Node != "" }

// Message says why no node was found, in the words of Kubernetes' scheduler; "" when one was.
func (d Decision) Message() string {
	if d.Fits() {
		return ""
	}
	if d.Nodes == 0 {
		return "no nodes available to schedule pods"
	}
	if d.Unready != "" {
		return fmt.Sprintf("0/%d nodes are available: %s.", d.Nodes, d.Unready)
	}
	counted := make([]string, 0, len(d.Reasons))
	for reason, n := range d.Reasons {
		counted = append(counted, fmt.Sprintf("%d %s", n, reason))
	}
	sort.Strings(counted)
	return fmt.Sprintf("0/%d nodes are available: %s.", d.Nodes, strings.Join(counted, ", "))
}

// Schedule finds a node for pod, which is not in the snapshot. It does not change what the snapshot says; the caller adds
// the pod with SetPod once it has decided to believe in the answer.
func (s *Snapshot) Schedule(pod *Pod) Decision {
	if why := s.unready(pod); why != "" {
		return Decision{Nodes: len(s.order), Unready: why}
	}
	d := s.place(pod)
	if d.Fits() {
		d.Claims = s.planClaims(pod, d.Node)
	}
	return d
}

// place finds a node for a pod whose claims are in order.
func (s *Snapshot) place(pod *Pod) Decision {
	s.refresh()
	d := Decision{Nodes: len(s.order)}
	filters := s.activeFilters(pod)
	feasible := s.feasible[:0]
	for _, n := range s.order {
		if passes(filters, n) {
			feasible = append(feasible, n)
		}
	}
	s.feasible = feasible
	d.Feasible = len(feasible)
	if len(feasible) == 0 {
		d.Reasons = explain(filters, s.order)
		return d
	}
	d.Node = s.best(pod, feasible).name
	return d
}

func passes(filters []filter, n *node) bool {
	for _, f := range filters {
		if !f.allows(n) {
			return false
		}
	}
	return true
}

// explain asks the first filter that refuses each node for its reasons. It is kept apart from passes so that the usual
// case, a pod that fits somewhere, never makes a text.
func explain(filters []filter, nodes []*node) map[string]int {
	reasons := map[string]int{}
	for _, n := range nodes {
		for _, f := range filters {
			if !f.allows(n) {
				for _, r := range f.reasons(n) {
					reasons[r]++
				}
				break
			}
		}
	}
	return reasons
}
