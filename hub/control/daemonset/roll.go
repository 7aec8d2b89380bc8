package daemonset

import (
	"math"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// bounds returns maxSurge and maxUnavailable of a rolling update over so many nodes.
func bounds(ds *appsv1.DaemonSet, nodes int) (surge, unavailable int) {
	r := ds.Spec.UpdateStrategy.RollingUpdate
	if ds.Spec.UpdateStrategy.Type != appsv1.RollingUpdateDaemonSetStrategyType || r == nil {
		return 0, 0
	}
	scaled := func(v *intstr.IntOrString) int {
		if v == nil {
			return 0
		}
		n, err := intstr.GetScaledValueFromIntOrPercent(v, nodes, true)
		if err != nil { // validation has refused it
			return 0
		}
		return min(max(0, n), math.MaxInt32)
	}
	return scaled(r.MaxSurge), scaled(r.MaxUnavailable)
}

// pair returns a node's updated pod and its old one, of those that are not being deleted. ok is false when there are more.
func (st *state) pair(pods []*corev1.Pod) (fresh, old *corev1.Pod, ok bool) {
	for _, p := range pods {
		slot := &old
		if st.updated(p) {
			slot = &fresh
		}
		switch {
		case p.DeletionTimestamp != nil:
		case *slot != nil:
			return nil, nil, false
		default:
			*slot = p
		}
	}
	return fresh, old, true
}

// roll adds the next steps of the rolling update. Dark nodes are left out: nobody knows what their pods do, and a replacement
// would begin when they are back.
func (st *state) roll(a *actions) {
	desired := 0
	var nodes []node
	for _, n := range st.nodes {
		if n.dark {
			continue
		}
		if n.bind {
			desired++
		}
		if st.closed(n.name) {
			continue
		}
		if n.bind || len(st.pods[n.name]) > 0 {
			nodes = append(nodes, n)
		}
	}
	surge, unavailable := bounds(st.ds, desired)
	if surge == 0 {
		st.replace(nodes, max(1, unavailable), a)
	} else {
		st.surge(nodes, desired, surge, a)
	}
}

// replace deletes old pods: those that are not available at once, others as long as no more than limit nodes are without an available
// pod. Their successors are created when they are gone.
func (st *state) replace(nodes []node, limit int, a *actions) {
	down := 0 // nodes without an available pod
	var candidates []*corev1.Pod
	for _, n := range nodes {
		fresh, old, ok := st.pair(st.pods[n.name])
		switch {
		case !ok || (fresh == nil) == (old == nil):
			down++ // on its way to one pod
		case fresh != nil:
			if !st.available(fresh) {
				down++
			}
		case !st.available(old):
			a.remove = append(a.remove, old)
			down++
		default:
			candidates = append(candidates, old)
		}
	}
	free, fetching := max(0, limit-down), 0
	for _, p := range candidates {
		if free == 0 || fetching >= max(2*limit, leastAhead) {
			return
		}
		if !st.replaceable(p.Spec.NodeName) {
			fetching++ // its images come first; the next ones may have theirs
			continue
		}
		a.remove = append(a.remove, p)
		free--
	}
}

// leastAhead is how many nodes may fetch images at a time for one update, or twice as many as may be updated at a time.
const leastAhead = 4

// surge creates new pods beside old ones, at most limit of them beside available ones, and deletes an old pod when the new one on its
// node is available.
func (st *state) surge(nodes []node, desired, limit int, a *actions) {
	surging, available := 0, 0
	var candidates []string
	var leaving []*corev1.Pod // available, on nodes where no pod belongs any more
	for _, n := range nodes {
		fresh, old, ok := st.pair(st.pods[n.name])
		if !ok {
			surging++
			continue
		}
		oldServes := old != nil && st.available(old)
		freshServes := fresh != nil && st.available(fresh)
		if oldServes || old == nil && freshServes {
			available++
		}
		switch {
		case old == nil:
		case fresh != nil && freshServes, fresh == nil && !n.bind && !oldServes:
			a.remove = append(a.remove, old)
		case fresh != nil:
			surging++
		case !n.bind:
			leaving = append(leaving, old)
		case !oldServes:
			a.create = append(a.create, n.name)
		default:
			candidates = append(candidates, n.name)
		}
	}
	a.remove = append(a.remove, leaving[:min(len(leaving), max(0, available-desired))]...)
	a.create = append(a.create, candidates[:min(len(candidates), max(0, limit-surging))]...)
}
