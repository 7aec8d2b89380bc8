package statefulset

import (
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/control/podset"
	"petrel.dev/petrel/internal/kube"
)

// actions are what one reconcile does: claims first, then updates, then pods.
type actions struct {
	claims []podClaim // to create
	update []update
	create []*corev1.Pod
	remove []*corev1.Pod // each once
	// blocked are pods that cannot be made, with the reason. They are tried again when a claim is gone.
	blocked []blocked
	// updating counts the pods in remove that are of the current revision and go because of it.
	updating int32
}

// podClaim is a claim with the pod that needs it.
type podClaim struct {
	claim *corev1.PersistentVolumeClaim
	pod   string
}

// update is an object as it should be. pod is its name when it is a pod, which is worth an event.
type update struct {
	obj kube.Object
	pod string
}

type blocked struct {
	pod string
	err error
}

// decide takes one step from what is towards what the StatefulSet wants: first the pods that should be there, then those that should
// not, then those that are of an old revision. In order (OrderedReady), each pod waits for those before it.
func decide(st *state) actions {
	var a actions
	if st.set.DeletionTimestamp != nil {
		return a
	}
	ordered := !st.parallel()
	for i := range st.replicas {
		if st.keep(i, &a) && ordered {
			return a
		}
	}
	for _, p := range st.condemned {
		st.fixOwners(p, &a)
	}
	unhealthy := st.firstUnhealthy()
	for _, p := range st.condemned {
		switch {
		case p.DeletionTimestamp != nil:
		case ordered && p != unhealthy && (!healthy(p) || !st.available(p)):
		default:
			a.remove = append(a.remove, p)
		}
		if ordered {
			return a
		}
	}
	if st.set.Spec.UpdateStrategy.Type != appsv1.OnDeleteStatefulSetStrategyType {
		st.roll(&a)
	}
	return a
}

// keep decides for one pod that should be there. It reports whether those after it wait, when pods go in order.
func (st *state) keep(i int, a *actions) (wait bool) {
	p := st.replicas[i]
	if p == nil {
		st.makePod(i, a)
		return true
	}
	if control.PodFinished(p) { // whatever its exit code: a pod that was evicted may have ended well
		var wait time.Duration
		if p.Status.Phase == corev1.PodFailed { // a node that refuses it would refuse the next one as fast
			wait = st.held(p.Name)
		}
		st.again(wait)
		if p.DeletionTimestamp == nil && wait == 0 {
			a.remove = append(a.remove, p)
		}
		return true // the name is free when the pod is gone
	}
	if p.Status.Phase == corev1.PodPending {
		st.addClaims(p, a)
	}
	if p.DeletionTimestamp != nil || !healthy(p) || !st.available(p) {
		if st.parallel() {
			st.repair(p, a)
		}
		return true
	}
	st.repair(p, a)
	return false
}

// repair gives a pod, perhaps an adopted one, what its identity needs.
func (st *state) repair(p *corev1.Pod, a *actions) {
	if up := identified(st.set, p); up != nil {
		st.addClaims(p, a)
		a.update = append(a.update, update{up, p.Name})
	}
	st.fixOwners(p, a)
}

// makePod adds the pod that is absent at an index. Below the partition it is of the current revision.
func (st *state) makePod(i int, a *actions) {
	if len(a.create) == podset.MaxBurst {
		return // the rest follows
	}
	n := first(st.set) + i
	v := st.update
	if i < st.partition() {
		v = st.current
	}
	p := newPod(st.set, v, n)
	if stale := st.staleClaim(p); stale {
		return // its claims are about to go with the pod before; that wakes the set
	}
	if err := st.endingClaim(p); err != nil {
		a.blocked = append(a.blocked, blocked{p.Name, err})
		return
	}
	st.addClaims(p, a)
	st.fixOwners(p, a)
	a.create = append(a.create, p)
}

// firstUnhealthy returns the pod that is looked at first of those that do not serve: of the wanted ones by ordinal, then of the others.
// In order, it is the one that may be deleted although it is not healthy.
func (st *state) firstUnhealthy() *corev1.Pod {
	for _, p := range st.replicas {
		if !st.serves(p) {
			return p
		}
	}
	for _, p := range slices.Backward(st.condemned) {
		if !st.serves(p) {
			return p
		}
	}
	return nil
}

// roll deletes pods that are of another revision than the update's, from the last one down to the partition. Two numbers bound it when
// the set names maxUnavailable: as many may be replaced at a time, and a pod that serves goes only when the others that do not are fewer.
// A pod of the old revision that does not serve is therefore replaced whatever it counts for: Kubernetes 1.35 let it hold its own
// replacement, and a set whose first revision never became ready stood still (kubernetes/kubernetes#137409).
func (st *state) roll(a *actions) {
	left, exact := st.maxUnavailable()
	spare := len(st.replicas) // pods that serve and may go
	if exact {
		lacking, replaced := st.lacking(a)
		left, spare = left-replaced, left-lacking
	}
	for i := len(st.replicas) - 1; i >= st.partition() && left > 0 && len(a.remove) < podset.MaxBurst; i-- {
		p := st.replicas[i]
		switch {
		case st.away(p, a) || st.updated(p) && !st.serves(p):
			if !exact { // else it has been counted
				left--
			}
		case st.updated(p):
		case st.dark(p.Spec.NodeName): // it most likely serves there, and its successor could not come before the node is back
			if !exact {
				left--
			} else if st.serves(p) {
				spare--
			}
		case !st.serves(p):
			left--
			st.replace(p, a)
		case spare <= 0:
		case !st.replaceable(p.Spec.NodeName):
			left, spare = left-1, spare-1 // it goes on serving while its node fetches the images
		default:
			left, spare = left-1, spare-1
			st.replace(p, a)
		}
	}
}

// replace deletes a pod because of its revision.
func (st *state) replace(p *corev1.Pod, a *actions) {
	a.remove = append(a.remove, p)
	if p.Labels[appsv1.StatefulSetRevisionLabel] == st.current.name {
		a.updating++
	}
}

// lacking counts the pods that do not serve, and those of them that the update is about to replace.
func (st *state) lacking(a *actions) (all, replaced int) {
	for i, p := range st.replicas {
		away := st.away(p, a)
		if away || !st.serves(p) {
			all++
			if i >= st.partition() && (away || st.updated(p)) {
				replaced++
			}
		}
	}
	return all, replaced
}

// away reports whether a pod of the table is absent or goes already.
func (st *state) away(p *corev1.Pod, a *actions) bool {
	return p == nil || p.DeletionTimestamp != nil || slices.Contains(a.remove, p)
}

// updated reports whether the pod is of the update's revision.
func (st *state) updated(p *corev1.Pod) bool {
	return p.Labels[appsv1.StatefulSetRevisionLabel] == st.update.name
}
