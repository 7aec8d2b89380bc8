package podrun

import (
	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/edgeagent/cruntime"
	"petrel.dev/petrel/edgeagent/desired"
	"petrel.dev/petrel/edgeagent/podrun/lifecycle"
)

// heldByName reports whether the pod waits for the end of an earlier one of its name, which the hub has dropped by force. The two of them
// must not run at a time: they may share a volume, and for a StatefulSet they are one member. The Manager wakes the pod when the other is gone.
func (w *worker) heldByName(d lifecycle.Target, containers []cruntime.Container) bool {
	known := w.mem.Admitted || w.mem.Rejected.Reason != "" || w.mem.Last.StartTime != nil || len(containers) > 0
	if known || d.Deleting() {
		return false
	}
	older := w.m.namesake(d.Pod)
	if older != "" && !w.announced {
		w.announced = true
		w.m.cfg.Log.Info("pod waits for an earlier one of its name", "pod", d.Pod.Name, "namespace", d.Pod.Namespace, "earlier", older)
		w.m.events.Record(d.Pod, nil, corev1.EventTypeNormal, "WaitingForPredecessor", "An earlier pod of this name (UID %s) has been deleted by force and is still ending on this node", older)
	}
	return older != ""
}

// namesake returns the UID of another pod of that name that is still here although the hub has dropped it; empty: there is none.
func (m *Manager) namesake(pod *corev1.Pod) string {
	set := m.want.Load().set.Pods
	for _, h := range m.all() {
		other := h.shown.Load().pod
		if set[h.uid] == nil && h.uid != string(pod.UID) && sameName(other, pod) {
			return h.uid
		}
	}
	return ""
}

// nameFreed wakes what may have waited for the end of a pod of its name; nil: the name was never known.
func (m *Manager) nameFreed(pod *corev1.Pod) {
	for _, h := range m.all() {
		if pod != nil && sameName(h.shown.Load().pod, pod) {
			h.inbox.poke()
		}
	}
}

// superseded reports whether the set has another pod of that name: then the hub has dropped this one, whether or not it has sent all
// that it wants. A node that reboots without a link after a deletion by force starts the later pod, not both.
func superseded(set *desired.Set, pod *corev1.Pod) bool {
	for _, other := range set.Pods {
		if other.UID != pod.UID && sameName(other, pod) {
			return true
		}
	}
	return false
}

// sameName reports whether two pods have one name; a nil pod has none.
func sameName(a, b *corev1.Pod) bool {
	return a != nil && a.Name == b.Name && a.Namespace == b.Namespace
}
