package kube

import (
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Condition is any of the API's condition types that Petrel reads and writes. They share Type, Status, Reason, Message and
// LastTransitionTime, but no Go type: a further kind is one entry here and one case in fieldsOf.
type Condition interface {
	corev1.PodCondition | corev1.NodeCondition | corev1.NamespaceCondition | appsv1.DeploymentCondition | appsv1.ReplicaSetCondition | appsv1.DaemonSetCondition |
		certificatesv1.CertificateSigningRequestCondition | batchv1.JobCondition | autoscalingv2.HorizontalPodAutoscalerCondition | flowcontrolv1.FlowSchemaCondition
}

// conditionFields are what the rules below need of a condition.
type conditionFields struct {
	kind   string
	status corev1.ConditionStatus
	since  *metav1.Time // points into the condition
}

func fieldsOf[C Condition](c *C) conditionFields {
	switch c := any(c).(type) {
	case *corev1.PodCondition:
		return conditionFields{string(c.Type), c.Status, &c.LastTransitionTime}
	case *corev1.NodeCondition:
		return conditionFields{string(c.Type), c.Status, &c.LastTransitionTime}
	case *corev1.NamespaceCondition:
		return conditionFields{string(c.Type), c.Status, &c.LastTransitionTime}
	case *appsv1.DeploymentCondition:
		return conditionFields{string(c.Type), c.Status, &c.LastTransitionTime}
	case *appsv1.DaemonSetCondition:
		return conditionFields{string(c.Type), c.Status, &c.LastTransitionTime}
	case *appsv1.ReplicaSetCondition:
		return conditionFields{string(c.Type), c.Status, &c.LastTransitionTime}
	case *certificatesv1.CertificateSigningRequestCondition:
		return conditionFields{string(c.Type), c.Status, &c.LastTransitionTime}
	case *autoscalingv2.HorizontalPodAutoscalerCondition:
		return conditionFields{string(c.Type), c.Status, &c.LastTransitionTime}
	case *batchv1.JobCondition:
		return conditionFields{string(c.Type), c.Status, &c.LastTransitionTime}
	case *flowcontrolv1.FlowSchemaCondition:
		return conditionFields{string(c.Type), corev1.ConditionStatus(c.Status), &c.LastTransitionTime}
	}
	panic("kube: a condition type without its case in fieldsOf")
}

// FindCondition returns the condition of type t, or nil. It points into list.
func FindCondition[C Condition, T ~string](list []C, t T) *C {
	for i := range list {
		if fieldsOf(&list[i]).kind == string(t) {
			return &list[i]
		}
	}
	return nil
}

// IsConditionTrue reports whether list has a condition of type t whose status is True. Absent and Unknown are not True.
func IsConditionTrue[C Condition, T ~string](list []C, t T) bool {
	c := FindCondition(list, t)
	return c != nil && fieldsOf(c).status == corev1.ConditionTrue
}

// KeepTransition gives c the lastTransitionTime of the condition of the same type and status in list: a transition is a
// change of status, and of nothing else. When there is none c keeps the time that its caller has set, which is now, in the
// precision that its caller stores.
func KeepTransition[C Condition](list []C, c *C) {
	want := fieldsOf(c)
	for i := range list {
		if had := fieldsOf(&list[i]); had.kind == want.kind && had.status == want.status {
			*want.since = *had.since
			return
		}
	}
}

// SetCondition puts c in the place of the condition of its type, or at the end, and returns the list. The caller has set
// all of c, with now as lastTransitionTime; the time of the condition that it replaces is kept when the status is the same
// (KeepTransition). It writes into list: a shared object is copied first.
func SetCondition[C Condition](list []C, c C) []C {
	KeepTransition(list, &c)
	if had := FindCondition(list, fieldsOf(&c).kind); had != nil {
		*had = c
		return list
	}
	return append(list, c)
}

// RemoveCondition returns list without the conditions of type t, in a slice of its own.
func RemoveCondition[C Condition, T ~string](list []C, t T) []C {
	return slices.DeleteFunc(slices.Clone(list), func(c C) bool { return fieldsOf(&c).kind == string(t) })
}

// OtherConditions returns those of list whose type does not occur in mine, in their order: what other writers have set,
// which the writer of mine carries over.
func OtherConditions[C Condition](list, mine []C) []C {
	has := make(map[string]bool, len(mine)) // a node's report may hold any number
	for i := range mine {
		has[fieldsOf(&mine[i]).kind] = true
	}
	var out []C
	for i := range list {
		if !has[fieldsOf(&list[i]).kind] {
			out = append(out, list[i])
		}
	}
	return out
}
