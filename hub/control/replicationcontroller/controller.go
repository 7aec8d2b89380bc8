// Package replicationcontroller keeps the wanted number of pods for each ReplicationController, by the rules of ReplicaSets: it shows
// them as such, and writes their status back.
package replicationcontroller

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/control/replicaset"
	"petrel.dev/petrel/internal/kube"
)

// New returns a controller; its Run starts it.
func New(cfg replicaset.Config) *replicaset.Controller[*corev1.ReplicationController] {
	return replicaset.NewOf(cfg, replicaset.Kind[*corev1.ReplicationController]{
		GVK: kube.ReplicationController, Loop: "replicationcontroller", View: view, WithStatus: withStatus, NoTerminating: true,
	})
}

// view shares its metadata, template and selector with rc.
func view(rc *corev1.ReplicationController) *appsv1.ReplicaSet {
	rs := &appsv1.ReplicaSet{
		ObjectMeta: rc.ObjectMeta,
		Spec: appsv1.ReplicaSetSpec{
			Replicas: rc.Spec.Replicas, MinReadySeconds: rc.Spec.MinReadySeconds,
			Selector: &metav1.LabelSelector{MatchLabels: rc.Spec.Selector},
		},
		Status: appsv1.ReplicaSetStatus{
			Replicas: rc.Status.Replicas, FullyLabeledReplicas: rc.Status.FullyLabeledReplicas, ReadyReplicas: rc.Status.ReadyReplicas,
			AvailableReplicas: rc.Status.AvailableReplicas, ObservedGeneration: rc.Status.ObservedGeneration,
		},
	}
	if rc.Spec.Template != nil { // validation requires it
		rs.Spec.Template = *rc.Spec.Template
	}
	for _, c := range rc.Status.Conditions {
		rs.Status.Conditions = kube.SetCondition(rs.Status.Conditions, appsv1.ReplicaSetCondition{Type: appsv1.ReplicaSetConditionType(c.Type),
			Status: c.Status, LastTransitionTime: *c.LastTransitionTime.DeepCopy(), Reason: c.Reason, Message: c.Message})
	}
	return rs
}

func withStatus(rc *corev1.ReplicationController, s appsv1.ReplicaSetStatus) *corev1.ReplicationController {
	up := rc.DeepCopy()
	up.Status = corev1.ReplicationControllerStatus{
		Replicas: s.Replicas, FullyLabeledReplicas: s.FullyLabeledReplicas, ReadyReplicas: s.ReadyReplicas,
		AvailableReplicas: s.AvailableReplicas, ObservedGeneration: s.ObservedGeneration,
	}
	var conditions []corev1.ReplicationControllerCondition
	for _, c := range s.Conditions {
		conditions = append(conditions, corev1.ReplicationControllerCondition{Type: corev1.ReplicationControllerConditionType(c.Type),
			Status: c.Status, LastTransitionTime: *c.LastTransitionTime.DeepCopy(), Reason: c.Reason, Message: c.Message})
	}
	up.Status.Conditions = conditions
	return up
}
