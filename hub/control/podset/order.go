package podset

import (
	"cmp"
	"math/bits"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/hub/control"
)

// Candidate is an active pod with what its place in the order of deletion depends on.
type Candidate struct {
	Pod *corev1.Pod
	// Keep puts the pod after all others that are not kept.
	Keep bool
	// Colocated is how many active pods of the same application are on its node.
	Colocated int

	cost int // controller.kubernetes.io/pod-deletion-cost, filled in by Victims
}

// Candidates adds to each active pod how many of the related ones, those of the same application, share its node, and
// whether it is to be kept. keep is called once for each pod, in their order; nil keeps none.
func Candidates(active, related []*corev1.Pod, keep func(*corev1.Pod) bool) []Candidate {
	perNode := map[string]int{}
	for _, p := range related {
		if control.PodActive(p) {
			perNode[p.Spec.NodeName]++
		}
	}
	out := make([]Candidate, len(active))
	for i, p := range active {
		out[i] = Candidate{Pod: p, Colocated: perNode[p.Spec.NodeName], Keep: keep != nil && keep(p)}
	}
	return out
}

// Victims picks n of the candidates to delete: those whose loss hurts least. The order is Kubernetes' own, documented
// with ReplicaSet ("Scaling a ReplicaSet") and controller.kubernetes.io/pod-deletion-cost: not yet on a node, pending,
// unready, cheap, doubled up on a node, ready for a shorter time, restarted more often, younger. Pods that are to be
// kept come after all others. It sorts cands in place.
func Victims(cands []Candidate, n int, now time.Time) []*corev1.Pod {
	for i := range cands {
		cands[i].cost = deletionCost(cands[i].Pod)
	}
	slices.SortStableFunc(cands, func(a, b Candidate) int { return order(a, b, now) })
	out := make([]*corev1.Pod, 0, n)
	for _, c := range cands[:min(n, len(cands))] {
		out = append(out, c.Pod)
	}
	return out
}

// order returns a negative number when a should be deleted before b.
func order(a, b Candidate, now time.Time) int {
	p, q := a.Pod, b.Pod
	pReady, qReady := control.PodReady(p), control.PodReady(q)
	return cmp.Or(
		falseFirst(a.Keep, b.Keep),
		falseFirst(p.Spec.NodeName != "", q.Spec.NodeName != ""),
		cmp.Compare(phaseRank(p), phaseRank(q)),
		falseFirst(pReady, qReady),
		cmp.Compare(a.cost, b.cost),
		cmp.Compare(b.Colocated, a.Colocated),
		byAge(readySince(p), readySince(q), pReady && qReady, now),
		cmp.Compare(restarts(q), restarts(p)),
		byAge(p.CreationTimestamp.Time, q.CreationTimestamp.Time, true, now),
		cmp.Compare(p.UID, q.UID),
	)
}

func falseFirst(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

func phaseRank(p *corev1.Pod) int {
	switch p.Status.Phase {
	case corev1.PodRunning:
		return 2
	case corev1.PodUnknown:
		return 1
	}
	return 0
}

// byAge puts the younger first, on a logarithmic scale: pods of about the same age count as equal, so that not always the
// same failure domain, the one restarted last, loses its pods.
func byAge(a, b time.Time, matters bool, now time.Time) int {
	if !matters {
		return 0
	}
	if a.IsZero() || b.IsZero() {
		return falseFirst(!a.IsZero(), !b.IsZero())
	}
	return cmp.Compare(ageRank(a, now), ageRank(b, now))
}

func ageRank(t, now time.Time) int {
	return bits.Len64(uint64(max(0, now.Sub(t))))
}

func readySince(p *corev1.Pod) time.Time {
	if c := control.PodCondition(p, corev1.PodReady); c != nil && c.Status == corev1.ConditionTrue {
		return c.LastTransitionTime.Time
	}
	return time.Time{}
}

func restarts(p *corev1.Pod) int {
	n := 0
	for _, s := range p.Status.ContainerStatuses {
		n = max(n, int(s.RestartCount))
	}
	return n
}

func deletionCost(p *corev1.Pod) int {
	n, err := strconv.ParseInt(p.Annotations[corev1.PodDeletionCost], 10, 32)
	if err != nil {
		return 0
	}
	return int(n)
}
