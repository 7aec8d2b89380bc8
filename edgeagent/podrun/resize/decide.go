package resize

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// Verdict is the answer to a resize. The zero value allocates it.
type Verdict struct {
	Reason  string // Deferred or Infeasible
	Message string
}

// Decide answers the resize of one pod among all pods of a node that has all of what is allocatable. Others whose resize is pending
// and who come first are given their part first, as far as there is room, also when they have not asked again yet.
func Decide(uid string, claims []Claim, all Amount) Verdict {
	used := Amount{}
	var pending []Claim
	for _, c := range claims {
		used.CPU, used.Memory = used.CPU+c.Has.CPU, used.Memory+c.Has.Memory
		if c.Pending {
			pending = append(pending, c)
		}
	}
	slices.SortFunc(pending, before)
	for _, c := range pending {
		others := Amount{used.CPU - c.Has.CPU, used.Memory - c.Has.Memory}
		v := judge(c, others, all)
		if c.UID == uid {
			return v
		}
		if v.Reason == "" {
			used = Amount{others.CPU + max(c.Has.CPU, c.Wants.CPU), others.Memory + max(c.Has.Memory, c.Wants.Memory)}
		}
	}
	return Verdict{} // it wants nothing
}

// judge answers one claim where other pods use some of all. What does not grow always fits.
func judge(c Claim, others, all Amount) Verdict {
	var deferred Verdict
	for _, r := range []struct {
		name                    corev1.ResourceName
		has, wants, others, all int64
	}{{corev1.ResourceCPU, c.Has.CPU, c.Wants.CPU, others.CPU, all.CPU}, {corev1.ResourceMemory, c.Has.Memory, c.Wants.Memory, others.Memory, all.Memory}} {
		switch {
		case r.wants <= r.has:
		case r.wants > r.all:
			return Verdict{corev1.PodReasonInfeasible, fmt.Sprintf("Node didn't have enough capacity: %s, requested: %d, capacity: %d", r.name, r.wants, r.all)}
		case r.wants > r.all-r.others && deferred.Reason == "":
			deferred = Verdict{corev1.PodReasonDeferred, fmt.Sprintf("Node didn't have enough resource: %s, requested: %d, used: %d, capacity: %d", r.name, r.wants, r.others, r.all)}
		}
	}
	return deferred
}
