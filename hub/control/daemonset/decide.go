package daemonset

import (
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/hub/control"
)

// actions are what one reconcile does.
type actions struct {
	create []string      // nodes that get a pod
	remove []*corev1.Pod // each once
	failed []string      // nodes of which a failed pod is removed: the next one there waits longer
	events []event
}

type event struct{ kind, reason, text string }

// decide takes one step from what is towards what the DaemonSet wants: first the right number of pods on each node and, when
// that is so, the next pods of the rolling update.
func decide(st *state) actions {
	var a actions
	for _, n := range st.nodes {
		pods := st.pods[n.name]
		switch {
		case n.bind && len(pods) == 0:
			a.create = append(a.create, n.name)
		case n.stay:
			st.keep(n, pods, &a)
		default:
			for _, p := range pods {
				if p.DeletionTimestamp == nil {
					a.remove = append(a.remove, p)
				}
			}
		}
	}
	a.remove = append(a.remove, st.stray...)
	if len(a.create)+len(a.remove) == 0 && st.ds.Spec.UpdateStrategy.Type == appsv1.RollingUpdateDaemonSetStrategyType {
		st.roll(&a)
	}
	return a
}

// keep decides for a node whose pods may stay: those that have ended go, and so do those that are too many.
func (st *state) keep(n node, pods []*corev1.Pod, a *actions) {
	var running []*corev1.Pod
	for _, p := range pods {
		switch {
		case p.DeletionTimestamp != nil:
		case p.Status.Phase == corev1.PodFailed:
			if wait := st.held(n.name); wait > 0 {
				st.again(wait)
				continue
			}
			a.failed = append(a.failed, n.name)
			a.end(p, corev1.EventTypeWarning, "FailedDaemonPod", fmt.Sprintf("Found failed daemon pod %s/%s on node %s, will try to kill it", p.Namespace, p.Name, n.name))
		case p.Status.Phase == corev1.PodSucceeded:
			a.end(p, corev1.EventTypeNormal, "SucceededDaemonPod", fmt.Sprintf("Found succeeded daemon pod %s/%s on node %s, will try to delete it", p.Namespace, p.Name, n.name))
		default:
			running = append(running, p)
		}
	}
	surge, _ := bounds(st.ds, 1)
	switch {
	case surge == 0 && len(running) > 1:
		a.remove = append(a.remove, running[1:]...)
	case surge > 0 && len(running) == 0 && n.bind:
		a.create = append(a.create, n.name) // the new pod does not wait for the old one's end
	case surge > 0 && len(running) > 1:
		st.prune(running, n.dark, a)
	}
}

func (a *actions) end(p *corev1.Pod, kind, reason, text string) {
	a.remove = append(a.remove, p)
	a.events = append(a.events, event{kind, reason, text})
}

// prune leaves, of several pods on a node of a DaemonSet that may surge, the oldest updated one and the oldest of the others; that
// one only while it is ready and the updated one is not available yet. On a dark node nobody knows whether it is ready: it stays.
func (st *state) prune(running []*corev1.Pod, dark bool, a *actions) {
	var fresh, old *corev1.Pod
	for _, p := range running {
		switch {
		case st.updated(p) && fresh == nil:
			fresh = p
		case !st.updated(p) && old == nil:
			old = p
		default:
			a.remove = append(a.remove, p)
		}
	}
	if fresh != nil && old != nil && !dark && (!control.PodReady(old) || st.available(fresh)) {
		a.remove = append(a.remove, old)
	}
}
