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
	// Cures are the changes of the fleet that may, when Node is "", lead to another answer.
	Cures Change
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
	return available(d.Nodes, d.Reasons)
}

// available returns the message that none of so many nodes is available, with the reasons counted.
func available(nodes int, reasons map[string]int) string {
	counted := make([]string, 0, len(reasons))
	for reason, n := range reasons {
		counted = append(counted, fmt.Sprintf("%d %s", n, reason))
	}
	sort.Strings(counted)
	return fmt.Sprintf("0/%d nodes are available: %s.", nodes, strings.Join(counted, ", "))
}

// Schedule finds a node for pod, which is not in the snapshot. It does not change what the snapshot says; the caller adds
// the pod with SetPod once it has decided to believe in the answer.
//
// A pod that is nominated goes to that node if it fits there. Room that is nominated to others, as or more important, is
// not there for it.
func (s *Snapshot) Schedule(pod *Pod) Decision {
	if why := s.unready(pod); why != "" {
		return Decision{Nodes: len(s.order), Unready: why, Cures: Volumes}
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
	if n := s.nodes[s.nominations[pod.Object.UID].node]; n != nil && s.refusal(filters, pod, n) == nil {
		d.Feasible, d.Node = 1, n.name
		return d
	}
	feasible := s.feasible[:0]
	for _, n := range s.order {
		if passes(filters, n) && (len(n.nominated) == 0 || s.refusal(filters, pod, n) == nil) {
			feasible = append(feasible, n)
		}
	}
	s.feasible = feasible
	d.Feasible = len(feasible)
	if len(feasible) == 0 {
		d.Reasons, d.Cures = s.explain(filters, pod)
		return d
	}
	d.Node = s.best(pod, feasible).name
	return d
}

// Admits reports whether pod could go to the node just now.
func (s *Snapshot) Admits(pod *Pod, node string) bool {
	s.refresh()
	n := s.nodes[node]
	return n != nil && s.refusal(s.activeFilters(pod), pod, n) == nil
}

func passes(filters []filter, n *node) bool {
	for _, f := range filters {
		if !f.allows(n) {
			return false
		}
	}
	return true
}

// refusing returns the first filter that refuses n, nil when none does.
func refusing(filters []filter, n *node) filter {
	for _, f := range filters {
		if !f.allows(n) {
			return f
		}
	}
	return nil
}

// A refused is a filter that refuses a node, and the node as it looks to the filter: with the pods that are nominated to it.
type refused struct {
	filter
	reasons []string
	movable bool
}

// refusal returns why n does not take pod, nil when it does: it must with those that are nominated to n and go before the pod, and
// without them, because they may end up elsewhere.
func (s *Snapshot) refusal(filters []filter, pod *Pod, n *node) *refused {
	t := s.try(filters, pod, n)
	defer t.end()
	return t.refusal()
}

// explain asks the first filter that refuses each node for its reasons. It is kept apart from passes so that the usual
// case, a pod that fits somewhere, never makes a text.
func (s *Snapshot) explain(filters []filter, pod *Pod) (map[string]int, Change) {
	reasons, cures := map[string]int{}, NodeCame
	for _, n := range s.order {
		if r := s.refusal(filters, pod, n); r != nil {
			for _, why := range r.reasons {
				reasons[why]++
			}
			cures |= r.cures()
		}
	}
	return reasons, cures
}
