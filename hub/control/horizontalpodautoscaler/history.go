package horizontalpodautoscaler

import (
	"slices"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"

	"petrel.dev/petrel/internal/kube"
)

// history is what was recommended and done for one autoscaler lately. The worker that has its key owns it.
type history struct {
	recommended []recommendation // oldest first
	ups, downs  []rescale        // oldest first
}

// recommendation is what the metrics asked for, before any limit.
type recommendation struct {
	at       time.Time
	replicas int32
}

// rescale is one change of the target's size; by is how many replicas came or went.
type rescale struct {
	at time.Time
	by int32
}

// begin counts the present size as recommended, the first time: nothing is scaled down soon after a start of the hub.
func (h *history) begin(now time.Time, current int32) {
	if h.recommended == nil {
		h.recommended = []recommendation{{now, current}}
	}
}

// recommend adds a recommendation, and drops those that no window reaches.
func (h *history) recommend(now time.Time, replicas int32, longest time.Duration) {
	h.recommended = slices.DeleteFunc(h.recommended, func(r recommendation) bool { return r.at.Before(now.Add(-longest)) })
	h.recommended = append(h.recommended, recommendation{now, replicas})
}

// extremes returns the lowest and the highest of replicas and what was recommended in the window that ends now.
func (h *history) extremes(now time.Time, replicas int32, window time.Duration) (lowest, highest int32) {
	lowest, highest = replicas, replicas
	for _, r := range h.recommended {
		if r.at.After(now.Add(-window)) {
			lowest, highest = min(lowest, r.replicas), max(highest, r.replicas)
		}
	}
	return lowest, highest
}

// scaled adds a change of size. Changes that no policy of the behavior looks at any more are dropped.
func (h *history) scaled(now time.Time, b *autoscalingv2.HorizontalPodAutoscalerBehavior, from, to int32) {
	switch {
	case b == nil: // its rules look at none
	case to > from:
		h.ups = append(recent(h.ups, now, b.ScaleUp), rescale{now, to - from})
	default:
		h.downs = append(recent(h.downs, now, b.ScaleDown), rescale{now, from - to})
	}
}

func recent(list []rescale, now time.Time, rules *autoscalingv2.HPAScalingRules) []rescale {
	var longest int32
	if rules != nil {
		for _, p := range rules.Policies {
			longest = max(longest, p.PeriodSeconds)
		}
	}
	return slices.DeleteFunc(list, func(r rescale) bool { return r.at.Before(now.Add(-kube.Seconds(longest))) })
}

// changed returns by how many replicas the changes of the period that ends now amount to.
func changed(list []rescale, now time.Time, period time.Duration) (n int32) {
	for _, r := range list {
		if r.at.After(now.Add(-period)) {
			n += r.by
		}
	}
	return n
}
