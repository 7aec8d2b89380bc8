package lifecycle

import (
	"time"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/internal/kube"
)

const (
	ReasonEvicted = "Evicted"
	// evictionGrace is the grace, in seconds, of a pod that is evicted: what it writes meanwhile others lack. As kubelet.
	evictionGrace = 1
	// discardRetry is how long after a container could not be removed it is tried again.
	discardRetry = 10 * time.Second
)

// endGrace is the grace, in seconds, of what still runs in a pod that has ended.
func (s *stepper) endGrace() int64 {
	if s.o.Last.Reason == ReasonEvicted {
		return min(Grace(s.d.Pod), evictionGrace)
	}
	return Grace(s.d.Pod)
}

// discard removes the containers of a pod that has ended: of an evicted one always, since their space was the reason; of
// another when the disk is short.
func (s *stepper) discard() {
	for i := range s.o.Containers {
		c := &s.o.Containers[i]
		if s.o.Last.Reason == ReasonEvicted || !s.o.Discard.IsZero() && c.FinishedAt.Before(s.o.Discard) {
			s.do(Action{Kind: RemoveContainer, Container: c.Name, ID: c.ID, Attempt: c.Attempt})
			s.at(s.now.Add(discardRetry))
		}
	}
}

// disruption returns the condition by which controllers see that a pod was ended for the node's sake, or nil.
func (s *stepper) disruption(st *corev1.PodStatus) *corev1.PodCondition {
	if old := kube.FindCondition(s.o.Last.Conditions, corev1.DisruptionTarget); old != nil {
		return old
	}
	if st.Reason != ReasonEvicted || !s.o.Evict.Pressure {
		return nil
	}
	return &corev1.PodCondition{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: corev1.PodReasonTerminationByKubelet,
		Message: s.o.Evict.Message, ObservedGeneration: s.d.Pod.Generation, LastTransitionTime: kube.Timestamp(s.now)}
}
