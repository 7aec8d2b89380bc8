// Package podphase names briefly what pods of a rollout are at, where that is not what it should be.
package podphase

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/internal/kube"
)

// Phases, in the order in which a pod goes through them. A pod that is ready has none.
var phases = []string{"without a node", "starting", "without an image", "crashing", "not ready", "stopping"}

// of returns the pod's phase, "" when it is ready or over.
func of(p *corev1.Pod) string {
	switch {
	case p.DeletionTimestamp != nil:
		return "stopping"
	case p.Spec.NodeName == "":
		return "without a node"
	case p.Status.Phase == corev1.PodSucceeded, p.Status.Phase == corev1.PodFailed:
		return ""
	}
	for _, c := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		if c.State.Waiting == nil {
			continue
		}
		switch c.State.Waiting.Reason {
		case "ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName":
			return "without an image"
		case "CrashLoopBackOff":
			return "crashing"
		}
	}
	switch {
	case kube.IsConditionTrue(p.Status.Conditions, corev1.PodReady):
		return ""
	case p.Status.Phase == corev1.PodRunning:
		return "not ready"
	}
	return "starting"
}

// MayPull reports whether the pod's node may be pulling an image for it.
func MayPull(p *corev1.Pod) bool { return of(p) == "starting" || of(p) == "without an image" }

// Summary returns how many of the pods are in which phase: "2 starting, 1 crashing".
func Summary(pods []*corev1.Pod) string {
	count := map[string]int{}
	for _, p := range pods {
		count[of(p)]++
	}
	var parts []string
	for _, phase := range phases {
		if n := count[phase]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, phase))
		}
	}
	return strings.Join(parts, ", ")
}
