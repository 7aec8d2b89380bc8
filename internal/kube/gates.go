package kube

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// nodeConditions are those conditions of a pod that its node writes. A readiness gate may name one of them, though it seldom does.
var nodeConditions = []corev1.PodConditionType{corev1.PodScheduled, corev1.PodReadyToStartContainers, corev1.PodInitialized, corev1.ContainersReady,
	corev1.PodReady, corev1.AllContainersRestarting, corev1.DisruptionTarget, corev1.PodResizePending, corev1.PodResizeInProgress}

// GateConditions returns, of the conditions that a pod's readiness gates name, type and status: all that counts for readiness. They are
// in the order of the gates.
func GateConditions(p *corev1.Pod) (out []corev1.PodCondition) {
	for _, g := range p.Spec.ReadinessGates {
		if c := FindCondition(p.Status.Conditions, g.ConditionType); c != nil && FindCondition(out, c.Type) == nil {
			out = append(out, corev1.PodCondition{Type: c.Type, Status: c.Status})
		}
	}
	return out
}

// UnmetGates returns why a pod's readiness gates keep it from being ready, in kubelet's words; empty: they do not.
func UnmetGates(p *corev1.Pod) string {
	var unmet []string
	for _, g := range p.Spec.ReadinessGates {
		c := FindCondition(p.Status.Conditions, g.ConditionType)
		switch {
		case c == nil:
			unmet = append(unmet, fmt.Sprintf("corresponding condition of pod readiness gate %q does not exist.", string(g.ConditionType)))
		case c.Status != corev1.ConditionTrue:
			unmet = append(unmet, fmt.Sprintf("the status of pod readiness gate %q is not \"True\", but %v", string(g.ConditionType), c.Status))
		}
	}
	return strings.Join(unmet, ", ")
}

// WithoutGates returns conditions that a node reports of a pod without those that its readiness gates wait for from other writers: of these
// the node has only what it was sent.
func WithoutGates(p *corev1.Pod, reported []corev1.PodCondition) []corev1.PodCondition {
	return slices.DeleteFunc(slices.Clone(reported), func(c corev1.PodCondition) bool {
		return !slices.Contains(nodeConditions, c.Type) &&
			slices.ContainsFunc(p.Spec.ReadinessGates, func(g corev1.PodReadinessGate) bool { return g.ConditionType == c.Type })
	})
}
