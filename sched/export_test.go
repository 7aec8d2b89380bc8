package sched

import corev1 "k8s.io/api/core/v1"

// Scored returns what scoring takes a pod to use.
func Scored(p *corev1.Pod) (milliCPU, memory int64) {
	s := NewPod(p).scored
	return s.milliCPU, s.memory
}
