package horizontalpodautoscaler

import (
	"fmt"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
)

const (
	// syncPeriod is how often an autoscaler is computed, as on Kubernetes.
	syncPeriod = 15 * time.Second
	// meteredPeriod is how often where a pod of its target is on a node whose link is paid by the byte.
	meteredPeriod = time.Minute
	// shortestPeriod is as long as an answer of a node serves all who ask; longestPeriod is what still can be called scaling.
	shortestPeriod, longestPeriod = 15 * time.Second, 24 * time.Hour
)

// period returns how often an autoscaler is computed: as its annotation says, otherwise by whether pods are on metered nodes.
func period(a *autoscalingv2.HorizontalPodAutoscaler, metered bool) (time.Duration, []warning) {
	every := syncPeriod
	if metered {
		every = meteredPeriod
	}
	text, ok := a.Annotations[kube.SyncPeriodAnnotation]
	if !ok {
		return every, nil
	}
	if d, err := time.ParseDuration(text); err == nil && d >= shortestPeriod && d <= longestPeriod {
		return d, nil
	}
	return every, []warning{{"InvalidAnnotation", fmt.Sprintf("annotation %s: %q is not used: it must be a duration from %v to %v, such as 2m; %v is used",
		kube.SyncPeriodAnnotation, text, shortestPeriod, longestPeriod, every)}}
}

// metered reports whether any of the pods is on a node that is marked so.
func (c *Controller) metered(pods []*corev1.Pod) bool {
	for _, p := range pods {
		if n, ok := control.Get[*corev1.Node](c.client, kube.Node, "", p.Spec.NodeName); ok && kube.Metered(n) {
			return true
		}
	}
	return false
}
