package horizontalpodautoscaler

import (
	"math"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"

	"petrel.dev/petrel/internal/kube"
)

// downscaleWindow is how long the highest recommendation holds before fewer replicas are wanted, unless the behavior says otherwise.
const downscaleWindow = 5 * time.Minute

// limits are what stands between what the metrics ask for and what is done.
type limits struct {
	behavior    *autoscalingv2.HorizontalPodAutoscalerBehavior // nil: the rules of autoscaling/v1
	least, most int32
	current     int32
	wanted      int32 // what the metrics ask for
}

// outcome is a size with its conditions.
type outcome struct {
	replicas int32
	able     note // of AbleToScale, which is true
	within   note // of ScalingLimited
	limited  bool // whether that is true
}

// note is a condition's reason and message.
type note struct{ reason, message string }

var (
	readyForNewScale = note{"ReadyForNewScale", "recommended size matches current size"}
	upStabilized     = note{"ScaleUpStabilized", "recent recommendations were lower than current one, applying the lowest recent recommendation"}
	downStabilized   = note{"ScaleDownStabilized", "recent recommendations were higher than current one, applying the highest recent recommendation"}
	withinRange      = note{"DesiredWithinRange", "the desired count is within the acceptable range"}
	upLimit          = note{"ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate"}
	downLimit        = note{"ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate"}
	tooMany          = note{"TooManyReplicas", "the desired replica count is more than the maximum replica count"}
	tooFew           = note{"TooFewReplicas", "the desired replica count is less than the minimum replica count"}
)

// apply brings what is wanted within the limits, and remembers it.
func (l limits) apply(h *history, now time.Time) outcome {
	var stable int32
	out := outcome{able: readyForNewScale}
	if l.behavior == nil {
		_, stable = h.extremes(now, l.wanted, downscaleWindow)
		h.recommend(now, l.wanted, downscaleWindow)
		if stable != l.wanted {
			out.able = downStabilized
		}
		out.replicas, out.within = l.plain(stable)
	} else {
		stable = l.stabilize(h, now)
		if stable != l.wanted {
			if out.able = downStabilized; l.wanted >= l.current {
				out.able = upStabilized
			}
		}
		out.replicas, out.within = l.rated(h, now, stable)
	}
	out.limited = out.replicas != stable
	return out
}

// plain is for an autoscaler without a behavior: at most double, or four.
func (l limits) plain(wanted int32) (int32, note) {
	most, why := l.most, tooMany
	if double := int32(min(max(2*int64(l.current), 4), math.MaxInt32)); most > double {
		most, why = double, upLimit
	}
	switch {
	case wanted < l.least:
		return l.least, tooFew
	case wanted > most:
		return most, why
	}
	return wanted, withinRange
}

// stabilize returns the size that is nearest to the current one and between the lowest recommendation of the window for scaling up and the highest
// of the one for scaling down.
func (l limits) stabilize(h *history, now time.Time) int32 {
	up, down := window(l.behavior.ScaleUp, 0), window(l.behavior.ScaleDown, downscaleWindow)
	lowest, _ := h.extremes(now, l.wanted, up)
	_, highest := h.extremes(now, l.wanted, down)
	h.recommend(now, l.wanted, max(up, down))
	return min(max(l.current, lowest), highest)
}

func window(rules *autoscalingv2.HPAScalingRules, otherwise time.Duration) time.Duration {
	if rules == nil || rules.StabilizationWindowSeconds == nil {
		return otherwise
	}
	return kube.Seconds(*rules.StabilizationWindowSeconds)
}

// rated applies the policies of the behavior: how much may change in which time.
func (l limits) rated(h *history, now time.Time, wanted int32) (int32, note) {
	switch {
	case wanted > l.current:
		most, why := l.most, tooMany
		if limit := max(l.current, l.policyLimit(h, now, l.behavior.ScaleUp, +1)); most > limit {
			most, why = limit, upLimit
		}
		if wanted > most {
			return most, why
		}
	case wanted < l.current:
		least, why := l.least, tooFew
		if limit := min(l.current, l.policyLimit(h, now, l.behavior.ScaleDown, -1)); least < limit {
			least, why = limit, downLimit
		}
		if wanted < least {
			return least, why
		}
	}
	return wanted, withinRange
}

// policyLimit returns the size that policies allow in one direction, +1 or -1: that of the policy that allows the largest change, or with
// selectPolicy Min the smallest.
func (l limits) policyLimit(h *history, now time.Time, rules *autoscalingv2.HPAScalingRules, direction int32) int32 {
	selected := autoscalingv2.MaxChangePolicySelect
	if rules != nil && rules.SelectPolicy != nil {
		selected = *rules.SelectPolicy
	}
	if rules == nil || selected == autoscalingv2.DisabledPolicySelect {
		return l.current
	}
	limit, first := l.current, true
	for _, p := range rules.Policies {
		period := kube.Seconds(p.PeriodSeconds)
		start := l.current - changed(h.ups, now, period) + changed(h.downs, now, period)
		f := float64(start) + float64(direction)*float64(p.Value)
		if p.Type == autoscalingv2.PercentScalingPolicy {
			f = float64(start) * (1 + float64(direction)*float64(p.Value)/100)
			if direction > 0 {
				f = math.Ceil(f) // one more at least, otherwise it would never grow
			}
		}
		allowed := int32(min(f, math.MaxInt32))
		further := allowed*direction > limit*direction
		if first || further == (selected != autoscalingv2.MinChangePolicySelect) {
			limit, first = allowed, false
		}
	}
	return limit
}
