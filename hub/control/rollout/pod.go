package rollout

import (
	"time"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/hub/control"
)

// failures are reasons for which a container waits that time alone does not cure.
var failures = map[string]bool{"CrashLoopBackOff": true, "RunContainerError": true, "CreateContainerError": true, "CreateContainerConfigError": true,
	"InvalidImageName": true, "ErrImageNeverPull": true}

// Failed reports whether an updated pod that is not available counts as failed: it has ended, a container does not start, or it has not become
// available within the deadline. wait is how long until the deadline, when it has not. An image that cannot be pulled counts by the deadline: links are slow.
func (s *Spec) Failed(p *corev1.Pod, now time.Time) (failed bool, wait time.Duration) {
	if p.Status.Phase == corev1.PodFailed {
		return true, 0
	}
	for _, list := range [][]corev1.ContainerStatus{p.Status.InitContainerStatuses, p.Status.ContainerStatuses} {
		for _, c := range list {
			if w := c.State.Waiting; w != nil && failures[w.Reason] {
				return true, 0
			}
		}
	}
	begun := p.CreationTimestamp.Time
	if ready := control.PodCondition(p, corev1.PodReady); ready != nil && ready.LastTransitionTime.After(begun) {
		begun = ready.LastTransitionTime.Time // it was available, and has ceased to be
	}
	wait = begun.Add(s.PodDeadline).Sub(now)
	return wait <= 0, max(0, wait)
}
