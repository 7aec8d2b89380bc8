package sched

import (
	"cmp"
	"hash/fnv"
	"math"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/internal/kube"
)

// Budget is how many disruptions something allows. Who may be disrupted is decided by the caller's rules.
type Budget struct {
	Allowed int32 // before it is broken
	// Charges reports whether the disruption of a pod counts against the budget.
	Charges func(*corev1.Pod) bool
}

// Preemption is what evicting less important pods can do for a pod that fits nowhere: a node with victims, or why none helps.
type Preemption struct {
	Node string // "" when nobody is to be evicted
	// Victims are those that must leave Node, the most important first. Some may be leaving already.
	Victims []*Pod
	// Broken is how many of them go against a budget.
	Broken int
	// Waits is set when pods that were evicted for this pod are still leaving the node that it is nominated to.
	Waits bool

	nodes    int
	reasons  map[string]int // why there is no Node
	excluded string         // why the pod may not evict others, "" when it may
}

// Message returns why preemption does not help, in the words of Kubernetes' scheduler; "" when it does.
func (p *Preemption) Message() string {
	switch {
	case p.Node != "" || p.nodes == 0:
		return ""
	case p.excluded != "":
		return "preemption: " + p.excluded
	}
	return "preemption: " + available(p.nodes, p.reasons)
}

// The reasons why preemption does not help on a node, beside those of filters that refuse even without the victims.
const (
	notHelpful = "Preemption is not helpful for scheduling"
	noVictims  = "No preemption victims found for incoming pod"
	noEnd      = "node(s) were unreachable, where no victim can end"
)

// Preempt decides whom to evict for a pod that Schedule has found no node for. It changes nothing.
//
// On each node where fewer pods could help, all less important ones are taken away, and then given back as long as the pod still
// fits; those that cannot be given back are the victims. Of all nodes that with the cheapest victims is chosen.
func (s *Snapshot) Preempt(pod *Pod, budgets []Budget) Preemption {
	s.refresh()
	out := Preemption{nodes: len(s.order), reasons: map[string]int{}}
	if policy := pod.Object.Spec.PreemptionPolicy; policy != nil && *policy == corev1.PreemptNever {
		out.excluded = "not eligible due to preemptionPolicy=Never."
		return out
	}
	if s.unready(pod) != "" {
		out.reasons[notHelpful] = out.nodes
		return out
	}
	filters := s.activeFilters(pod)
	if s.victimsLeave(filters, pod) {
		out.excluded, out.Waits = "not eligible due to a terminating pod on the nominated node.", true
		return out
	}
	var best *candidate
	found := 0
	for _, c := range s.candidates(filters, pod, out.reasons) {
		if best != nil && (!c.cheaper(best) || found >= enough(len(s.order)) && best.broken == 0) {
			break
		}
		why := s.victims(c, filters, pod, budgets)
		for _, reason := range why {
			out.reasons[reason]++
		}
		if why == nil {
			found++
			if best == nil || c.cheaper(best) {
				best = c
			}
		}
	}
	if best != nil {
		out.Node, out.Victims, out.Broken, out.reasons = best.node.name, best.victims, best.broken, nil
	}
	return out
}

// enough is how many nodes with victims are compared; beyond Kubernetes' bound, a better one is not worth the search.
func enough(nodes int) int { return max(100, nodes/10) }

// victimsLeave reports whether a less important pod that was evicted by preemption is still leaving the node that pod is nominated
// to. When that node cannot take the pod in any case, or is dark, waiting for it is no use.
func (s *Snapshot) victimsLeave(filters []filter, pod *Pod) bool {
	n := s.nodes[s.nominations[pod.Object.UID].node]
	if n == nil || n.dark {
		return false
	}
	if r := s.refusal(filters, pod, n); r != nil && !r.movable {
		return false
	}
	for _, p := range n.pods {
		c := kube.FindCondition(p.Object.Status.Conditions, corev1.DisruptionTarget)
		if p.priority < pod.priority && p.leaving && c != nil && c.Status == corev1.ConditionTrue && c.Reason == corev1.PodReasonPreemptionByScheduler {
			return true
		}
	}
	return false
}

// candidates returns the nodes where evictions could help, with the least that they could cost, the cheapest first. Of the
// other nodes it counts the reasons.
func (s *Snapshot) candidates(filters []filter, pod *Pod, reasons map[string]int) (list []*candidate) {
	h := fnv.New32a()
	h.Write([]byte(pod.Object.UID))
	start := int(h.Sum32() % uint32(max(1, len(s.order)))) // so that equal pods do not all go to one of equal nodes
	for i := range s.order {
		n := s.order[(start+i)%len(s.order)]
		t := s.try(filters, pod, n)
		movable := t.movable()
		t.end()
		if !movable {
			reasons[notHelpful]++
			continue
		}
		if n.dark {
			reasons[noEnd]++
			continue
		}
		if l := n.below(pod.priority); l.any {
			list = append(list, leastCost(pod, n, l))
		} else {
			reasons[noVictims]++
		}
	}
	slices.SortStableFunc(list, (*candidate).compare)
	return list
}

// lowPods sums up the pods of a node that are less important than some priority.
type lowPods struct {
	than        int32 // that priority
	any         bool
	leaving     bool  // one of them is
	lowest      int32 // priority
	lastStart   int64 // of those with the lowest priority
	cpu, memory int64 // of the largest
}

// below returns the sum; a node keeps it until its pods change, because those who preempt come in numbers.
func (n *node) below(priority int32) *lowPods {
	if n.low != nil && n.low.than == priority {
		return n.low
	}
	l := &lowPods{than: priority, lowest: math.MaxInt32, lastStart: math.MinInt64}
	for _, p := range n.pods {
		if p.priority >= priority {
			continue
		}
		l.any, l.leaving = true, l.leaving || p.leaving
		l.cpu, l.memory = max(l.cpu, p.requests.milliCPU), max(l.memory, p.requests.memory)
		if p.priority < l.lowest {
			l.lowest, l.lastStart = p.priority, p.started
		} else if p.priority == l.lowest {
			l.lastStart = max(l.lastStart, p.started)
		}
	}
	n.low = l
	return l
}

// leastCost returns what the victims of pod on n, one of l at least, cost at the least: as many as make room if each is of the
// largest, all of the lowest priority, and those that started last.
func leastCost(pod *Pod, n *node, l *lowPods) *candidate {
	if l.leaving {
		return &candidate{node: n, highest: math.MinInt32, earliest: math.MaxInt64}
	}
	lack := func(want, used, have, largest int64) int {
		if missing := want - (have - used); want > 0 && missing > 0 && largest > 0 {
			return int(min((missing-1)/largest+1, math.MaxInt32))
		}
		return 1
	}
	c := &candidate{node: n, highest: l.lowest, earliest: l.lastStart}
	c.number = max(lack(pod.requests.milliCPU, n.used.milliCPU, n.allocatable.milliCPU, l.cpu),
		lack(pod.requests.memory, n.used.memory, n.allocatable.memory, l.memory))
	c.sum = int64(c.number) * weightOf(c.highest)
	return c
}

// victims finds whom c's node would lose for pod, and what that costs, or returns why it does not help.
func (s *Snapshot) victims(c *candidate, filters []filter, pod *Pod, budgets []Budget) (why []string) {
	n := c.node
	t := s.try(filters, pod, n)
	defer t.end()
	low := make([]*Pod, 0, len(n.pods))
	for _, p := range n.pods {
		if p.priority < pod.priority {
			low = append(low, p.Pod)
		}
	}
	t.copy()
	for _, p := range low {
		t.move(p, -1)
	}
	if r := t.refusal(); r != nil {
		return r.reasons
	}
	slices.SortFunc(low, importance)
	breaking, rest := split(low, budgets)
	for i, group := range [][]*Pod{breaking, rest} {
		for _, p := range group {
			if t.move(p, 1); t.fits() {
				continue
			}
			t.move(p, -1)
			c.victims = append(c.victims, p)
			if i == 0 {
				c.broken++
			}
		}
	}
	if len(c.victims) == 0 {
		return []string{notHelpful}
	}
	slices.SortFunc(c.victims, importance)
	c.weigh()
	return nil
}

// importance orders pods by how bad it is to lose them, the worst first: those that are leaving are lost already.
func importance(a, b *Pod) int {
	if la, lb := a.leaving, b.leaving; la != lb {
		return map[bool]int{true: 1, false: -1}[la]
	}
	if a.priority != b.priority {
		return cmp.Compare(b.priority, a.priority)
	}
	if c := cmp.Compare(a.started, b.started); c != 0 {
		return c
	}
	return strings.Compare(string(a.Object.UID), string(b.Object.UID))
}

// split parts pods, which are in order of importance, into those whose disruption would break a budget and the rest.
func split(pods []*Pod, budgets []Budget) (breaking, rest []*Pod) {
	if len(budgets) == 0 {
		return nil, pods
	}
	left := make([]int32, len(budgets))
	for i := range budgets {
		left[i] = budgets[i].Allowed
	}
	for _, p := range pods {
		breaks := false
		for i := range budgets {
			if !p.leaving && budgets[i].Charges(p.Object) {
				left[i]--
				breaks = breaks || left[i] < 0
			}
		}
		if breaks {
			breaking = append(breaking, p)
		} else {
			rest = append(rest, p)
		}
	}
	return breaking, rest
}

// candidate is a node with its victims, and what they cost: pods that are leaving cost nothing.
type candidate struct {
	node     *node
	victims  []*Pod
	broken   int   // budgets that would be
	highest  int32 // priority
	sum      int64 // of priorities, as weightOf
	number   int   // of victims
	earliest int64 // start of those with the highest priority
}

// weightOf is a priority made positive, so that more pods never cost less.
func weightOf(priority int32) int64 { return int64(priority) - math.MinInt32 }

// weigh sets what the victims cost.
func (c *candidate) weigh() {
	c.highest, c.earliest, c.number, c.sum = math.MinInt32, math.MaxInt64, 0, 0
	for _, p := range c.victims { // by importance
		if p.leaving {
			continue
		}
		c.number++
		c.sum += weightOf(p.priority)
		if c.number == 1 || p.priority == c.highest && p.started < c.earliest {
			c.highest, c.earliest = p.priority, p.started
		}
	}
}

// compare orders by Kubernetes' criteria, the cheapest first.
func (c *candidate) compare(o *candidate) int {
	return cmp.Or(cmp.Compare(c.broken, o.broken), cmp.Compare(c.highest, o.highest), cmp.Compare(c.sum, o.sum),
		cmp.Compare(c.number, o.number), cmp.Compare(o.earliest, c.earliest))
}

func (c *candidate) cheaper(than *candidate) bool { return c.compare(than) < 0 }
