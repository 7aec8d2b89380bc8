package deployment

import (
	"cmp"
	"math"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
)

// roll takes one step of a rolling update. Its invariants, counted without deferred pods:
//
//	pods               ≤ replicas + maxSurge
//	pods that serve    ≥ replicas − maxUnavailable, as far as the rollout can influence it
//
// Growing and shrinking in one step keep both, since each is computed as if the other had not happened yet.
func (r *rollout) roll() {
	surge, unavailable := surge(r.d), r.mayBeUnavailable(r.d)
	cur, goal := r.sizeOf(r.current), r.goal()
	grow := min(goal, r.limit)
	switch {
	case cur > r.want:
		r.size[r.current.UID] = r.want
	case cur < grow:
		room := goal + surge - r.oldLive() - cur
		r.size[r.current.UID] = cur + max(0, min(room, grow-cur))
	}

	cur = r.sizeOf(r.current)
	least := goal - unavailable
	// Pods of the current ReplicaSet that do not serve yet must not cost old ones that do.
	mayGo := min(r.oldLive()+cur-least-(cur-r.settled()), r.oldLive()-r.holds())
	for _, rs := range r.old { // those that are not ready go first
		n := max(0, min(mayGo, r.live(rs)-r.available(rs)))
		r.size[rs.UID] -= n
		mayGo -= n
	}
	serving := r.settled()
	for _, rs := range r.old {
		serving += r.available(rs)
	}
	mayGo = min(mayGo, serving-least)
	for _, rs := range r.old {
		n := max(0, min(mayGo, r.live(rs)))
		r.size[rs.UID] -= n
		mayGo -= n
	}
}

// recreate takes one step of an update that must not run two versions side by side (as far as nodes can be reached). It
// reports whether the current ReplicaSet may have pods now.
func (r *rollout) recreate() bool {
	waiting := false
	for _, rs := range r.old {
		if r.live(rs) > 0 {
			r.size[rs.UID] = r.deferredOf(rs)
			waiting = true
		}
		if r.oldPods[rs.UID] || int64(rs.Status.Replicas) > r.dark[rs.UID] {
			waiting = true
		}
	}
	if waiting {
		return false
	}
	if r.current != nil {
		r.size[r.current.UID] = max(r.goal(), min(r.sizeOf(r.current), r.want))
	}
	return true
}

// resized reports whether the Deployment's replicas have changed since its ReplicaSets were last scaled.
func (r *rollout) resized() bool {
	for _, rs := range r.active() {
		if n, ok := number(rs, desiredAnnotation); ok && n != r.want {
			return true
		}
	}
	return false
}

// resize divides a new number of replicas among the ReplicaSets in the proportion of their sizes, so that scaling in the middle
// of a rollout neither advances nor reverts it.
func (r *rollout) resize() {
	active := r.active()
	for _, rs := range active {
		r.touched[rs.UID] = true
	}
	switch {
	case len(active) == 0:
		if newest := r.newest(); newest != nil {
			r.size[newest.UID] = r.want
		}
		return
	case len(active) == 1:
		r.size[active[0].UID] = r.want
		return
	case r.saturated():
		for _, rs := range r.old {
			r.size[rs.UID] = 0
		}
		return
	case r.d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType:
		return
	}
	allowed := int64(0)
	if r.want > 0 {
		allowed = r.goal() + surge(r.d)
	}
	delta := allowed
	for _, rs := range active {
		delta -= r.live(rs)
	}
	for _, rs := range r.old { // pods on dark nodes that there is no place for any more
		n := max(0, min(r.dark[rs.UID]-r.deferred[rs.UID], r.live(rs), -delta))
		r.size[rs.UID] -= n
		delta += n
	}
	r.share(active, delta)
}

// share adds delta (which may be negative) in proportion to size, the largest first and taking what rounding leaves.
// Among equals, newer ones grow first and older ones shrink first.
func (r *rollout) share(active []*appsv1.ReplicaSet, delta int64) {
	if delta == 0 {
		return
	}
	slices.SortStableFunc(active, func(a, b *appsv1.ReplicaSet) int {
		age := olderFirst(a, b)
		if delta > 0 {
			age = -age
		}
		return cmp.Or(cmp.Compare(r.live(b), r.live(a)), age)
	})
	left := delta
	for _, rs := range active {
		n := r.proportion(rs)
		if delta > 0 {
			n = max(0, min(n, left))
		} else {
			n = min(0, max(n, left))
		}
		r.size[rs.UID] += n
		left -= n
	}
	first := active[0].UID
	r.size[first] = max(r.deferred[first], r.size[first]+left)
}

// proportion returns how much a ReplicaSet would change if all kept their share of the total.
func (r *rollout) proportion(rs *appsv1.ReplicaSet) int64 {
	if r.want == 0 {
		return -r.size[rs.UID]
	}
	before, ok := number(rs, maxAnnotation)
	if !ok || before == 0 {
		before = int64(r.d.Status.Replicas)
	}
	if before == 0 {
		return 0
	}
	live := float64(r.live(rs))
	return int64(math.Round(live*float64(r.want+surge(r.d))/float64(before)) - live)
}

func (r *rollout) newest() *appsv1.ReplicaSet {
	if r.current != nil {
		return r.current
	}
	if len(r.old) > 0 {
		return r.old[len(r.old)-1]
	}
	return nil
}

// saturated reports whether the current ReplicaSet has all replicas that are wanted, and all are available.
func (r *rollout) saturated() bool {
	if r.current == nil {
		return false
	}
	n, ok := number(r.current, desiredAnnotation)
	return ok && n == r.want && r.sizeOf(r.current) == r.want && int64(r.current.Status.AvailableReplicas) == r.want
}
