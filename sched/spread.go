package sched

import (
	"fmt"
	"math"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
)

// spreadConstraint is one of a pod's topologySpreadConstraints, see
// https://kubernetes.io/docs/concepts/scheduling-eviction/topology-spread-constraints/.
type spreadConstraint struct {
	key         string
	maxSkew     int32
	minDomains  int32
	hard        bool
	selector    labels.Selector
	honorTaints bool
	honorNodes  bool // nodes that the pod's node affinity excludes do not count
}

func (p *Pod) prepareSpread() {
	for _, c := range p.Object.Spec.TopologySpreadConstraints {
		sel, err := selectorOf(c.LabelSelector, p.Object, c.MatchLabelKeys, nil)
		if err != nil {
			p.err = fmt.Errorf("topology spread constraint on %s: %w", c.TopologyKey, err)
			return
		}
		s := spreadConstraint{key: c.TopologyKey, maxSkew: c.MaxSkew, minDomains: 1, selector: sel,
			hard:        c.WhenUnsatisfiable == corev1.DoNotSchedule,
			honorNodes:  c.NodeAffinityPolicy == nil || *c.NodeAffinityPolicy == corev1.NodeInclusionPolicyHonor,
			honorTaints: c.NodeTaintsPolicy != nil && *c.NodeTaintsPolicy == corev1.NodeInclusionPolicyHonor}
		if c.MinDomains != nil {
			s.minDomains = *c.MinDomains
		}
		p.spread = append(p.spread, s)
	}
}

// matches counts the pods that the constraint of p counts.
func (c *spreadConstraint) matches(s *Snapshot, p *Pod) *count {
	ns := p.Object.Namespace
	return s.matching("spread "+ns+" "+c.selector.String(), func(pod *corev1.Pod) bool { return c.counts(ns, pod) })
}

// counts reports whether a constraint of a pod in namespace ns counts pod; one on its way out does not count.
func (c *spreadConstraint) counts(ns string, pod *corev1.Pod) bool {
	return pod.Namespace == ns && pod.DeletionTimestamp == nil && c.selector.Matches(labels.Set(pod.Labels))
}

// eligible returns which nodes count for the constraint: those with every key in all, and as the constraint's policies
// say; nil when all do.
func (c *spreadConstraint) eligible(s *Snapshot, p *Pod, all []*topology) func(*node) bool {
	var affinity *nodeaffinity.RequiredNodeAffinity
	if c.honorNodes && selectsNodes(p.Object) {
		a := nodeaffinity.GetRequiredNodeAffinity(p.Object)
		affinity = &a
	}
	t := taints{tolerations: p.Object.Spec.Tolerations}
	return func(n *node) bool {
		for _, other := range all {
			if other.domain[n.slot] < 0 {
				return false
			}
		}
		if affinity != nil {
			if ok, _ := affinity.Match(n.obj); !ok {
				return false
			}
		}
		return !c.honorTaints || t.allows(n)
	}
}

// skew is one hard constraint with the numbers of this decision.
type skew struct {
	*topology
	constraint *spreadConstraint
	eligible   func(*node) bool
	counts     []int32 // pods in each domain
	least      int32   // the smallest of the eligible domains; 0 when too few exist
	smallest   int32   // a domain with the fewest pods, as prepare counted; -1 when too few exist
	next       int32   // the fewest pods of all other eligible domains, as prepare counted
	maxSkew    int32
	self       int32 // 1 when the pod counts itself
}

// topologySpread refuses nodes in whose domain the pod would be one too many.
type topologySpread struct {
	namespace string
	skews     []skew
}

func (f *topologySpread) prepare(s *Snapshot, p *Pod) bool {
	f.namespace = p.Object.Namespace
	var hard []*spreadConstraint
	var all []*topology
	for i := range p.spread {
		if c := &p.spread[i]; c.hard {
			hard = append(hard, c)
			all = append(all, s.topology(c.key))
		}
	}
	for i, c := range hard {
		eligible := c.eligible(s, p, all)
		k := skew{topology: all[i], constraint: c, eligible: eligible, maxSkew: c.maxSkew, counts: s.perDomain(all[i], c.matches(s, p), eligible)}
		if c.selector.Matches(labels.Set(p.Object.Labels)) {
			k.self = 1
		}
		exists := make([]bool, len(k.counts)) // domains with an eligible node
		domains := int32(0)
		for _, n := range s.order {
			if d := all[i].domain[n.slot]; d >= 0 && !exists[d] && eligible(n) {
				exists[d] = true
				domains++
			}
		}
		k.least, k.next, k.smallest = math.MaxInt32, math.MaxInt32, -1
		for d, there := range exists {
			switch {
			case !there:
			case k.counts[d] < k.least:
				k.least, k.next, k.smallest = k.counts[d], k.least, int32(d)
			default:
				k.next = min(k.next, k.counts[d])
			}
		}
		if domains == 0 || domains < c.minDomains {
			k.least, k.smallest = 0, -1 // domains that do not exist yet have no pods
		}
		f.skews = append(f.skews, k)
	}
	return len(hard) > 0
}

func (f *topologySpread) cures() Change {
	return NodeCame | NodeGone | NodeLabels | NodeTaints | PodCame | PodLeft | PodLabels
}

// movable is false for a node without one of the labels.
func (f *topologySpread) movable(n *node) bool {
	for i := range f.skews {
		if f.skews[i].domain[n.slot] < 0 {
			return false
		}
	}
	return true
}

func (f *topologySpread) adjust(n *node, p *Pod, by int32) {
	for i := range f.skews {
		k := &f.skews[i]
		d := k.domain[n.slot]
		if d < 0 || !k.eligible(n) || !k.constraint.counts(f.namespace, p.Object) {
			continue
		}
		k.counts[d] += by
		switch {
		case k.smallest < 0:
		case k.smallest == d:
			k.least = min(k.counts[d], k.next)
		default:
			k.least = min(k.counts[d], k.counts[k.smallest])
		}
	}
}

func (f *topologySpread) allows(n *node) bool {
	for i := range f.skews {
		k := &f.skews[i]
		d := k.domain[n.slot]
		if d < 0 || k.counts[d]+k.self-k.least > k.maxSkew {
			return false
		}
	}
	return true
}

func (f *topologySpread) reasons(n *node) []string {
	for i := range f.skews {
		if f.skews[i].domain[n.slot] < 0 {
			return []string{"node(s) didn't match pod topology spread constraints (missing required label)"}
		}
	}
	return []string{"node(s) didn't match pod topology spread constraints"}
}

// spreadScore prefers nodes in domains with few matching pods, for the soft constraints. Small topologies weigh less than
// large ones, in which one pod more says less: the weight is the logarithm of their size.
type spreadScore struct {
	parts []spreadPart
	all   []*topology
}

type spreadPart struct {
	*topology
	counts []int32
	weight float64
	slack  float64
}

func (f *spreadScore) prepare(s *Snapshot, p *Pod, feasible []*node) bool {
	var soft []*spreadConstraint
	for i := range p.spread {
		if c := &p.spread[i]; !c.hard {
			soft = append(soft, c)
			f.all = append(f.all, s.topology(c.key))
		}
	}
	for i, c := range soft {
		t := f.all[i]
		seen := make([]bool, len(t.values))
		size := 0
		for _, n := range feasible {
			if d := t.domain[n.slot]; d >= 0 && !seen[d] {
				seen[d] = true
				size++
			}
		}
		f.parts = append(f.parts, spreadPart{topology: t, counts: s.perDomain(t, c.matches(s, p), c.eligible(s, p, f.all)),
			weight: math.Log(float64(size + 2)), slack: float64(c.maxSkew - 1)})
	}
	return len(soft) > 0
}

// ignored are nodes that lack a key: the worst choice.
const ignored = -1

func (f *spreadScore) score(n *node) int64 {
	sum := 0.0
	for i := range f.parts {
		part := &f.parts[i]
		d := part.domain[n.slot]
		if d < 0 {
			return ignored
		}
		sum += float64(part.counts[d])*part.weight + part.slack
	}
	return int64(math.Round(sum))
}

func (f *spreadScore) normalize(scores []int64) {
	least, most := int64(math.MaxInt64), int64(0)
	for _, v := range scores {
		if v != ignored {
			least, most = min(least, v), max(most, v)
		}
	}
	for i, v := range scores {
		switch {
		case v == ignored:
			scores[i] = 0
		case most == 0:
			scores[i] = maxScore
		default:
			scores[i] = maxScore * (most + least - v) / most
		}
	}
}
