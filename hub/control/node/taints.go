package node

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
)

// pressure are the conditions by which a node asks for no more pods, with the taints that the scheduler reads.
var pressure = map[corev1.NodeConditionType]string{
	corev1.NodeMemoryPressure:     corev1.TaintNodeMemoryPressure,
	corev1.NodeDiskPressure:       corev1.TaintNodeDiskPressure,
	corev1.NodePIDPressure:        corev1.TaintNodePIDPressure,
	corev1.NodeNetworkUnavailable: corev1.TaintNodeNetworkUnavailable,
}

// taints is the third job, and has no state: it returns the node's taints, with those that follow from its conditions, its
// darkness and spec.unschedulable corrected and all others kept. It returns the old slice itself when nothing changes.
func taints(n *corev1.Node, dark bool, now time.Time) []corev1.Taint {
	at := metav1.NewTime(now.Truncate(time.Second))
	type id struct {
		key    string
		effect corev1.TaintEffect
	}
	want := map[id]bool{}
	want[id{corev1.TaintNodeUnschedulable, corev1.TaintEffectNoSchedule}] = n.Spec.Unschedulable
	for t, key := range pressure {
		want[id{key, corev1.TaintEffectNoSchedule}] = kube.IsConditionTrue(n.Status.Conditions, t)
	}
	ready := control.NodeCondition(n, corev1.NodeReady)
	notReady := !dark && (ready == nil || ready.Status == corev1.ConditionFalse)
	want[id{kube.TaintUnreachable, corev1.TaintEffectNoSchedule}] = dark
	want[id{kube.TaintUnreachable, corev1.TaintEffectNoExecute}] = dark
	want[id{kube.TaintNotReady, corev1.TaintEffectNoSchedule}] = notReady
	// A node that has reported nothing yet runs no pods that would have to be evicted.
	want[id{kube.TaintNotReady, corev1.TaintEffectNoExecute}] = notReady && ready != nil

	var out []corev1.Taint
	changed := false
	for _, t := range n.Spec.Taints {
		k := id{t.Key, t.Effect}
		if on, ours := want[k]; ours && !on {
			changed = true
			continue
		}
		delete(want, k)
		out = append(out, t)
	}
	var add []corev1.Taint
	for k, on := range want {
		if on {
			t := corev1.Taint{Key: k.key, Effect: k.effect}
			if k.effect == corev1.TaintEffectNoExecute {
				t.TimeAdded = &at
			}
			add = append(add, t)
		}
	}
	if len(add) == 0 && !changed {
		return n.Spec.Taints
	}
	slices.SortFunc(add, func(a, b corev1.Taint) int {
		if a.Key != b.Key {
			return map[bool]int{true: -1, false: 1}[a.Key < b.Key]
		}
		return map[bool]int{true: -1, false: 1}[a.Effect > b.Effect] // NoSchedule before NoExecute
	})
	return append(out, add...)
}
