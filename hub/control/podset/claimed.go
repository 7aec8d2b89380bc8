package podset

import (
	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
)

// Claimed are an owner's pods, by what they count for.
type Claimed struct {
	// Active are neither finished nor being deleted: the owner's replicas, those just adopted included.
	Active []*corev1.Pod
	// Ending are being deleted and have not finished.
	Ending []*corev1.Pod
	// Ended have finished (Succeeded or Failed), being deleted or not. They are not adopted, and replicas are made in their
	// place. A controller that needs their results finds them here.
	Ended []*corev1.Pod
}

// divide sorts the pods that have owner as their controller.
func divide(owner kube.Object, pods []*corev1.Pod) (c Claimed) {
	for _, p := range pods {
		switch {
		case !control.OwnedBy(p, owner):
		case control.PodFinished(p):
			c.Ended = append(c.Ended, p)
		case p.DeletionTimestamp != nil:
			c.Ending = append(c.Ending, p)
		default:
			c.Active = append(c.Active, p)
		}
	}
	return c
}
