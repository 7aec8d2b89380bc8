package replicaset

import (
	"cmp"
	"math/bits"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/hub/control"
)

// candidate is an active pod with what its place in the order of deletion depends on.
type candidate struct {
	pod *corev1.Pod
	// keep: the pod is on a dark node and one of those that the Deployment has deferred.
	keep bool
	// colocated is how many active pods of the same application are on its node.
	colocated int
	cost      int
}

// victims picks n of the candidates to delete: those whose loss hurts least. The order is Kubernetes' own, documented
// with ReplicaSet ("Scaling a ReplicaSet") and controller.kubernetes.io/pod-deletion-cost. Before all that come pods
// that are deferred: they go last.
func victims(cands []candidate, n int, now time.Time) []*corev1.Pod {
	for i := range cands {
		cands[i].cost = deletionCost(cands[i].pod)
	}
	slices.SortStableFunc(cands, func(a, b candidate) int { return order(a, b, now) })
	out := make([]*corev1.Pod, 0, n)
	for _, c := range cands[:min(n, len(cands))] {
		out = append(out, c.pod)
	}
	return out
}

// order is negative when a should be deleted before b.
func order(a, b candidate, now time.Time) int {
	p, q := a.pod, b.pod
	pReady, qReady := control.PodReady(p), control.PodReady(q)
	return cmp.Or(
		falseFirst(a.keep, b.keep),
		falseFirst(p.Spec.NodeName != "", q.Spec.NodeName != ""),
		cmp.Compare(phaseRank(p), phaseRank(q)),
		falseFirst(pReady, qReady),
		cmp.Compare(a.cost, b.cost),
		cmp.Compare(b.colocated, a.colocated),
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
