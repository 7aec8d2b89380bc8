package node

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
)

// contact is what presence says of a node, reduced to what the rules need.
type contact struct {
	connected bool
	seen      time.Time // the last sign of life; zero when there was none since the hub started
	// silent is since when nothing has been heard: the last sign of life, or the time when this hub first saw the Node (its
	// own start, for most) when that is later, since before it nobody listened.
	silent time.Time
}

// darkAfter tells whether the node counts as dark now, and otherwise how long until it will if it stays silent.
func (c contact) darkAfter(grace time.Duration, now time.Time) (dark bool, wait time.Duration) {
	if c.connected {
		return false, 0
	}
	wait = c.silent.Add(grace).Sub(now)
	return wait <= 0, max(0, wait)
}

// reasonUnknown marks a condition that the hub has set to Unknown because the node is dark.
const reasonUnknown = "NodeStatusUnknown"

// words are a node's own conditions, as it last gave them.
type words map[corev1.NodeConditionType]corev1.NodeCondition

// hear takes in what the node has said in conds, apart from what the hub has written there.
func (w words) hear(conds []corev1.NodeCondition) {
	for _, c := range conds {
		if c.Type != kube.DarkCondition && c.Reason != reasonUnknown {
			w[c.Type] = c
		}
	}
}

// conditions are the node's, with what only the hub can know: whether it is dark. Everything that the node said of
// itself becomes Unknown while it is. When it is back, said (what it had said before, nil if the hub does not know) holds
// again: a node tells only what has changed since it last did.
func conditions(old []corev1.NodeCondition, said words, dark bool, since, now time.Time) []corev1.NodeCondition {
	at := metav1.NewTime(now.Truncate(time.Second))
	out := slices.Clone(old)
	switch was := kube.IsConditionTrue(out, kube.DarkCondition); {
	case dark && !was:
		out = kube.SetCondition(out, corev1.NodeCondition{Type: kube.DarkCondition, Status: corev1.ConditionTrue, Reason: "NotHeardOf",
			LastHeartbeatTime: at, LastTransitionTime: at,
			Message: fmt.Sprintf("The hub has not heard of this node since %s. Its pods most likely go on running.", since.UTC().Format(time.RFC3339))})
	case !dark && was:
		out = kube.SetCondition(out, corev1.NodeCondition{Type: kube.DarkCondition, Status: corev1.ConditionFalse, Reason: "Connected",
			LastHeartbeatTime: at, LastTransitionTime: at, Message: "The node has a session with the hub."})
	}
	if dark {
		if kube.FindCondition(out, corev1.NodeReady) == nil {
			out = append(out, corev1.NodeCondition{Type: corev1.NodeReady})
		}
		for i := range out {
			if out[i].Type == kube.DarkCondition || out[i].Status == corev1.ConditionUnknown {
				continue
			}
			out[i].Status, out[i].LastTransitionTime = corev1.ConditionUnknown, at
			out[i].Reason, out[i].Message = reasonUnknown, "The node is dark: nothing is known of it at present."
		}
		return out
	}
	for i := range out {
		if out[i].Status != corev1.ConditionUnknown || out[i].Reason != reasonUnknown {
			continue
		}
		if s, ok := said[out[i].Type]; ok {
			out[i] = s
			out[i].LastTransitionTime = at
		}
	}
	return out
}

// pressure are the conditions by which a node asks for no more pods, with the taints that say so to the scheduler.
var pressure = map[corev1.NodeConditionType]string{
	corev1.NodeMemoryPressure:     corev1.TaintNodeMemoryPressure,
	corev1.NodeDiskPressure:       corev1.TaintNodeDiskPressure,
	corev1.NodePIDPressure:        corev1.TaintNodePIDPressure,
	corev1.NodeNetworkUnavailable: corev1.TaintNodeNetworkUnavailable,
}

// taints are the node's taints, with those that follow from its state put right and all others kept. They are the old
// slice itself when nothing changes.
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
	// A node that has said nothing yet has no pods that anything could be wrong with.
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
