package node

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/internal/kube"
)

// contact is a node's presence, reduced to what the rules need.
type contact struct {
	connected bool      // has a session now
	seen      time.Time // the last sign of life; zero when there was none since the hub started
	// silent is since when the node counts as silent: its last sign of life, or the time when this hub first saw the Node (its
	// own start, for most) when that is later, because the hub received nothing before.
	silent time.Time
}

// darkAfter reports whether the node counts as dark now, and otherwise how long until it will if it stays silent.
func (c contact) darkAfter(grace time.Duration, now time.Time) (dark bool, wait time.Duration) {
	if c.connected {
		return false, 0
	}
	wait = c.silent.Add(grace).Sub(now)
	return wait <= 0, max(0, wait)
}

// reasonUnknown marks a condition that the hub has set to Unknown because the node is dark.
const reasonUnknown = "NodeStatusUnknown"

// reported are a node's own conditions, as it last reported them.
type reported map[corev1.NodeConditionType]corev1.NodeCondition

// merge adds what the node reports in conds. It leaves out what the hub has written there.
func (r reported) merge(conds []corev1.NodeCondition) {
	for _, c := range conds {
		if c.Type != kube.DarkCondition && c.Reason != reasonUnknown {
			r[c.Type] = c
		}
	}
}

// conditions returns the node's conditions with the one that only the hub can know: whether it is dark. While it is, everything
// that the node reports of itself is Unknown. When it is back, before (what it had reported; nil if the hub does not know) holds
// again, because a node reports only what has changed since its last report.
func conditions(old []corev1.NodeCondition, before reported, dark bool, since, now time.Time) []corev1.NodeCondition {
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
		if s, ok := before[out[i].Type]; ok {
			out[i] = s
			out[i].LastTransitionTime = at
		}
	}
	return out
}
