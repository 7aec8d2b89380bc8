package node

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/internal/kube"
)

// defaultToleration is how long a pod without a toleration stays on a node that is unreachable or not ready: what
// the DefaultTolerationSeconds admission writes into pods.
const defaultToleration = 300 * time.Second

// forever is without limit: the value of the annotation by that name, and of a toleration without tolerationSeconds.
const forever = time.Duration(1<<63 - 1)

// autonomy reads kube.AutonomyAnnotation from the pod or, if it has none, from its node. set is false when neither has
// one that can be read; bad is then the reason, nil when neither has one at all.
func autonomy(p *corev1.Pod, n *corev1.Node) (d time.Duration, set bool, bad error) {
	for _, a := range []map[string]string{p.Annotations, n.Annotations} {
		v, ok := a[kube.AutonomyAnnotation]
		if !ok {
			continue
		}
		if v == "forever" {
			return forever, true, nil
		}
		d, err := time.ParseDuration(v)
		if err != nil || d < 0 {
			return 0, false, fmt.Errorf("annotation %s: %q is neither \"forever\" nor a duration such as 30m or 72h", kube.AutonomyAnnotation, v)
		}
		return d, true, nil
	}
	return 0, false, nil
}

// evictAt returns when the node's NoExecute taints drive the pod out; ok is false when they do not. age returns for how long
// a taint has been there.
func evictAt(p *corev1.Pod, n *corev1.Node, age func(*corev1.Taint) time.Duration) (wait time.Duration, by string, ok bool) {
	for i := range n.Spec.Taints {
		t := &n.Spec.Taints[i]
		if t.Effect != corev1.TaintEffectNoExecute {
			continue
		}
		d := tolerated(p, n, t)
		if d == forever {
			continue
		}
		if w := max(0, d-age(t)); !ok || w < wait {
			wait, by, ok = w, t.Key, true
		}
	}
	return wait, by, ok
}

// tolerated returns how long the pod tolerates the taint, counted from when the taint was added; forever: without limit.
func tolerated(p *corev1.Pod, n *corev1.Node, t *corev1.Taint) time.Duration {
	if t.Key == kube.TaintUnreachable {
		if d, set, _ := autonomy(p, n); set {
			return d
		}
	}
	found := false
	shortest := forever
	for i := range p.Spec.Tolerations {
		tol := &p.Spec.Tolerations[i]
		if !tolerates(tol, t) {
			continue
		}
		found = true
		if tol.TolerationSeconds != nil {
			shortest = min(shortest, kube.Seconds(max(0, *tol.TolerationSeconds)))
		}
	}
	switch {
	case found:
		return shortest
	case t.Key == kube.TaintUnreachable || t.Key == kube.TaintNotReady:
		return defaultToleration
	}
	return 0
}

// tolerates reports whether the toleration matches the taint, by Kubernetes' rules.
func tolerates(tol *corev1.Toleration, t *corev1.Taint) bool {
	if tol.Effect != "" && tol.Effect != t.Effect {
		return false
	}
	if tol.Key == "" {
		return tol.Operator == corev1.TolerationOpExists
	}
	if tol.Key != t.Key {
		return false
	}
	switch tol.Operator {
	case "", corev1.TolerationOpEqual:
		return tol.Value == t.Value
	case corev1.TolerationOpExists:
		return true
	}
	return false
}
