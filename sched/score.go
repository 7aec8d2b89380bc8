package sched

import (
	"hash/fnv"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
)

// maxScore is the best that one scorer can say about a node; 0 is the worst.
const maxScore = 100

// A scorer compares nodes that could all run the pod.
type scorer interface {
	// prepare looks at the pod. It returns false when the scorer has nothing to say about it.
	prepare(s *Snapshot, p *Pod, feasible []*node) bool
	// score is a number of the scorer's own kind.
	score(n *node) int64
	// normalize turns the scores of all nodes into 0..maxScore, more is better.
	normalize(scores []int64)
}

// best returns the feasible node with the largest weighted sum of scores. Among equals the pod's UID decides, so that
// equal pods do not all meet on the first node.
func (s *Snapshot) best(p *Pod, feasible []*node) *node {
	if len(feasible) == 1 {
		return feasible[0]
	}
	all := [...]struct {
		scorer
		weight int64 // Kubernetes' weights, where it has the scorer
	}{
		{&softTaints{}, 3}, {&preferredNodes{}, 2}, {&spreadScore{}, 2}, {&podAffinityScore{}, 2}, {&ownerSpread{}, 2},
		{linkQuality{}, 2}, {&imageLocality{}, 1}, {&allocation{}, 1},
	}
	s.totals = slices.Grow(s.totals[:0], len(feasible))[:len(feasible)]
	s.scores = slices.Grow(s.scores[:0], len(feasible))[:len(feasible)]
	clear(s.totals)
	for _, sc := range all {
		if !sc.prepare(s, p, feasible) {
			continue
		}
		for i, n := range feasible {
			s.scores[i] = sc.score(n)
		}
		sc.normalize(s.scores)
		for i, v := range s.scores {
			s.totals[i] += sc.weight * v
		}
	}
	h := fnv.New32a()
	h.Write([]byte(p.Object.UID))
	start := int(h.Sum32() % uint32(len(feasible)))
	top := start
	for i := range feasible {
		if at := (start + i) % len(feasible); s.totals[at] > s.totals[top] {
			top = at
		}
	}
	return feasible[top]
}

// lessIsBetter turns numbers where 0 is best into scores.
func lessIsBetter(scores []int64) {
	most := slices.Max(scores)
	for i, v := range scores {
		if most == 0 {
			scores[i] = maxScore
		} else {
			scores[i] = maxScore - maxScore*v/most
		}
	}
}

// allocation prefers nodes with much left, and with the shares of CPU and memory in use close to each other: two scores
// of Kubernetes (least allocated, balanced allocation) in one sum, 0..200.
type allocation struct{ want resources }

func (f *allocation) prepare(_ *Snapshot, p *Pod, _ []*node) bool { f.want = p.scored; return true }

func (f *allocation) score(n *node) int64 {
	cpuUsed, memUsed := n.scored.milliCPU+f.want.milliCPU, n.scored.memory+f.want.memory
	left := (leftOf(cpuUsed, n.allocatable.milliCPU) + leftOf(memUsed, n.allocatable.memory)) / 2
	cpu, mem := share(cpuUsed, n.allocatable.milliCPU), share(memUsed, n.allocatable.memory)
	deviation := (cpu - mem) / 2
	if deviation < 0 {
		deviation = -deviation
	}
	return left + int64((1-deviation)*maxScore)
}

func (f *allocation) normalize([]int64) {}

func leftOf(used, have int64) int64 {
	if have <= 0 || used > have {
		return 0
	}
	return (have - used) * maxScore / have
}

func share(used, have int64) float64 {
	if have <= 0 || used > have {
		return 1
	}
	return float64(used) / float64(have)
}

// ownerSpread prefers nodes with few pods of the same controller: replicas are there so that one node may fail.
type ownerSpread struct{ owner types.UID }

func (f *ownerSpread) prepare(_ *Snapshot, p *Pod, _ []*node) bool {
	f.owner = p.owner
	return f.owner != "" && len(p.spread) == 0 // the pod's own constraints know better
}
func (f *ownerSpread) score(n *node) int64      { return int64(n.owners[f.owner]) }
func (f *ownerSpread) normalize(scores []int64) { lessIsBetter(scores) }

// softTaints prefers nodes with few PreferNoSchedule taints that the pod does not tolerate.
type softTaints struct{ tolerations []corev1.Toleration }

func (f *softTaints) prepare(_ *Snapshot, p *Pod, feasible []*node) bool {
	f.tolerations = p.Object.Spec.Tolerations
	return slices.ContainsFunc(feasible, func(n *node) bool { return len(n.soft) > 0 })
}

func (f *softTaints) score(n *node) (untolerated int64) {
	for i := range n.soft {
		if !tolerates(f.tolerations, &n.soft[i]) {
			untolerated++
		}
	}
	return untolerated
}
func (f *softTaints) normalize(scores []int64) { lessIsBetter(scores) }

// preferredNodes adds the weights of the preferred node affinity terms that select the node.
type preferredNodes struct {
	terms *nodeaffinity.PreferredSchedulingTerms
}

func (f *preferredNodes) prepare(_ *Snapshot, p *Pod, _ []*node) bool {
	a := p.Object.Spec.Affinity
	if a == nil || a.NodeAffinity == nil || len(a.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution) == 0 {
		return false
	}
	terms, err := nodeaffinity.NewPreferredSchedulingTerms(a.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution)
	f.terms = terms
	return err == nil // a preference that cannot be understood is none
}
func (f *preferredNodes) score(n *node) int64 { return f.terms.Score(n.obj) }
func (f *preferredNodes) normalize(scores []int64) {
	if most := slices.Max(scores); most > 0 {
		for i, v := range scores {
			scores[i] = maxScore * v / most
		}
	}
}
