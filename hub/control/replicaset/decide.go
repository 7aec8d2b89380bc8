package replicaset

import (
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/control/podset"
	"petrel.dev/petrel/internal/kube"
)

// diff returns how many pods to create (positive) or delete (negative) now.
func diff(rs *appsv1.ReplicaSet, active int) int {
	return max(-podset.MaxBurst, min(podset.MaxBurst, replicas(rs)-active))
}

func replicas(rs *appsv1.ReplicaSet) int {
	if rs.Spec.Replicas == nil {
		return 1
	}
	return int(*rs.Spec.Replicas)
}

// status returns the ReplicaSet's status from its pods. wait is how long until the next ready pod becomes available (0: none is
// waiting). failure is what went wrong with creating or deleting, nil if nothing did.
func status(rs *appsv1.ReplicaSet, mine podset.Claimed, failure error, now time.Time) (s appsv1.ReplicaSetStatus, wait time.Duration) {
	s = *rs.Status.DeepCopy()
	s.ObservedGeneration = rs.Generation
	s.Replicas = int32(len(mine.Active))
	s.FullyLabeledReplicas, s.ReadyReplicas, s.AvailableReplicas = 0, 0, 0
	n := int32(len(mine.Ending))
	s.TerminatingReplicas = &n
	template := labels.SelectorFromSet(rs.Spec.Template.Labels)
	for _, p := range mine.Active {
		if template.Matches(labels.Set(p.Labels)) {
			s.FullyLabeledReplicas++
		}
		if !control.PodReady(p) {
			continue
		}
		s.ReadyReplicas++
		ok, w := control.PodAvailable(p, rs.Spec.MinReadySeconds, now)
		if ok {
			s.AvailableReplicas++
		} else if w > 0 && (wait == 0 || w < wait) {
			wait = w
		}
	}
	s.Conditions = failureCondition(s.Conditions, len(mine.Active)-replicas(rs), failure, now)
	return s, wait
}

// failureCondition sets ReplicaFailure, or removes it. The first failure stays until there is none.
func failureCondition(conds []appsv1.ReplicaSetCondition, surplus int, failure error, now time.Time) []appsv1.ReplicaSetCondition {
	switch {
	case failure == nil:
		return kube.RemoveCondition(conds, appsv1.ReplicaSetReplicaFailure)
	case kube.FindCondition(conds, appsv1.ReplicaSetReplicaFailure) != nil:
		return conds
	}
	reason := ""
	switch {
	case surplus < 0:
		reason = "FailedCreate"
	case surplus > 0:
		reason = "FailedDelete"
	}
	return kube.SetCondition(conds, appsv1.ReplicaSetCondition{
		Type: appsv1.ReplicaSetReplicaFailure, Status: corev1.ConditionTrue,
		LastTransitionTime: metav1.NewTime(now), Reason: reason, Message: failure.Error(),
	})
}
