package control

import (
	"time"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/internal/kube"
)

// PodActive reports whether the pod counts as one of its owner's replicas: it has neither finished nor been deleted.
func PodActive(p *corev1.Pod) bool { return !PodFinished(p) && p.DeletionTimestamp == nil }

// PodFinished reports whether all containers have ended and none will start again.
func PodFinished(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

// PodCondition returns the condition of that type, or nil. It points into the pod.
func PodCondition(p *corev1.Pod, t corev1.PodConditionType) *corev1.PodCondition {
	return kube.FindCondition(p.Status.Conditions, t)
}

// PodReady reports whether the pod may serve.
func PodReady(p *corev1.Pod) bool { return kube.IsConditionTrue(p.Status.Conditions, corev1.PodReady) }

// PodAvailable reports whether the pod has been ready for at least minReadySeconds. If it is ready but not for long enough,
// wait is the time that is missing.
func PodAvailable(p *corev1.Pod, minReadySeconds int32, now time.Time) (ok bool, wait time.Duration) {
	c := PodCondition(p, corev1.PodReady)
	if c == nil || c.Status != corev1.ConditionTrue {
		return false, 0
	}
	if minReadySeconds == 0 {
		return true, 0
	}
	if c.LastTransitionTime.IsZero() {
		return false, 0
	}
	wait = c.LastTransitionTime.Add(kube.Seconds(minReadySeconds)).Sub(now)
	return wait <= 0, max(0, wait)
}

// NodeCondition returns the condition of that type, or nil. It points into the node.
func NodeCondition(n *corev1.Node, t corev1.NodeConditionType) *corev1.NodeCondition {
	return kube.FindCondition(n.Status.Conditions, t)
}

// NodeDark reports whether the node has been silent for longer than its grace. What its pods do is unknown; most
// likely, they run.
func NodeDark(n *corev1.Node) bool {
	return kube.IsConditionTrue(n.Status.Conditions, kube.DarkCondition)
}

// PodDark reports whether the pod is bound to a dark node.
func PodDark(r Reader, p *corev1.Pod) bool {
	if p.Spec.NodeName == "" {
		return false
	}
	n, ok := Get[*corev1.Node](r, kube.Node, "", p.Spec.NodeName)
	return ok && NodeDark(n)
}

// NamespaceEnding reports whether the namespace is being deleted: controllers create nothing in it.
func NamespaceEnding(r Reader, namespace string) bool {
	ns, ok := r.Get(kube.Namespace, "", namespace)
	return ok && ns.GetDeletionTimestamp() != nil
}
