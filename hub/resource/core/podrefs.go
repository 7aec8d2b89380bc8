package core

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
)

// PodSecrets returns the names of the Secrets that a pod refers to in its own namespace, each once. By upstream's rule these are
// what a kubelet may read on behalf of a pod: image pull secrets, and what containers and volumes of every kind name.
func PodSecrets(p *corev1.Pod) []string {
	return collect(p, podutil.VisitPodSecretNames)
}

// PodConfigMaps returns the names of the ConfigMaps that a pod refers to in its own namespace, each once.
func PodConfigMaps(p *corev1.Pod) []string {
	return collect(p, podutil.VisitPodConfigmapNames)
}

// collect returns the names that visit visits. Pods name few objects, so a search of the list is cheaper than a set.
func collect(p *corev1.Pod, visit func(*corev1.Pod, podutil.Visitor) bool) (names []string) {
	visit(p, func(name string) bool {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
		return true
	})
	return names
}
