package replicaset

import (
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
)

// maxBurst bounds what one reconcile creates or deletes, so that one ReplicaSet of ten thousand does not hold up others.
const maxBurst = 500

// diff is how many pods to create (positive) or delete (negative) now.
func diff(rs *appsv1.ReplicaSet, active int) int {
	return max(-maxBurst, min(maxBurst, replicas(rs)-active))
}

func replicas(rs *appsv1.ReplicaSet) int {
	if rs.Spec.Replicas == nil {
		return 1
	}
	return int(*rs.Spec.Replicas)
}

// newPod is a pod of the template.
func newPod(rs *appsv1.ReplicaSet) *corev1.Pod {
	t := rs.Spec.Template.DeepCopy()
	return &corev1.Pod{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{
			GenerateName:    podPrefix(rs.Name),
			Namespace:       rs.Namespace,
			Labels:          t.Labels,
			Annotations:     t.Annotations,
			Finalizers:      t.Finalizers,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(rs, gvk)},
		},
		Spec: t.Spec,
	}
}

// podPrefix leaves room for the five characters that generateName adds; a pod's name is a DNS subdomain of at most 253.
func podPrefix(name string) string {
	return name[:min(len(name), 253-6)] + "-"
}

// status is what the ReplicaSet's pods amount to. wait is when the next ready pod becomes available (0: none is waiting).
// failure is what went wrong with creating or deleting, nil if nothing did.
func status(rs *appsv1.ReplicaSet, active []*corev1.Pod, terminating int, failure error, now time.Time) (s appsv1.ReplicaSetStatus, wait time.Duration) {
	s = *rs.Status.DeepCopy()
	s.ObservedGeneration = rs.Generation
	s.Replicas = int32(len(active))
	s.FullyLabeledReplicas, s.ReadyReplicas, s.AvailableReplicas = 0, 0, 0
	n := int32(terminating)
	s.TerminatingReplicas = &n
	template := labels.SelectorFromSet(rs.Spec.Template.Labels)
	for _, p := range active {
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
	s.Conditions = failureCondition(s.Conditions, len(active)-replicas(rs), failure, now)
	return s, wait
}

// failureCondition sets ReplicaFailure, or takes it away. The first failure stays until there is none.
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
