package horizontalpodautoscaler

import (
	"fmt"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/internal/kube"
)

// seen is what one decision is made from. All of it is read-only but history, which the decision goes into.
type seen struct {
	autoscaler *autoscalingv2.HorizontalPodAutoscaler
	scale      *autoscalingv1.Scale
	pods       []*corev1.Pod // those that the scale selects
	readings   []reading     // one for each metric of the spec; empty unless measures(...)
	unusable   *unusable     // why the scale's selector cannot be used, or nil
	history    *history
	now        time.Time
}

// decision is what to do.
type decision struct {
	status   autoscalingv2.HorizontalPodAutoscalerStatus
	warnings []warning
	rescale  bool
	replicas int32  // the size wanted; with rescale false that of the scale
	why      string // for the Event of a rescale
}

// warning is an Event of type Warning, and the message of the condition that goes with it.
type warning struct{ reason, message string }

// unusable is why a selector cannot be used: for an Event, and for the condition.
type unusable struct {
	event     warning
	condition note
}

// unmeasured returns the size that is wanted whatever the metrics are, and why; ok is false when they decide.
func unmeasured(a *autoscalingv2.HorizontalPodAutoscaler, current int32) (replicas int32, why string, ok bool) {
	switch least := leastOf(a); {
	case current == 0:
		return 0, "", true
	case current > a.Spec.MaxReplicas:
		return a.Spec.MaxReplicas, "Current number of replicas above Spec.MaxReplicas", true
	case current < least:
		return least, "Current number of replicas below Spec.MinReplicas", true
	}
	return 0, "", false
}

// leastOf returns minReplicas.
func leastOf(a *autoscalingv2.HorizontalPodAutoscaler) int32 {
	if a.Spec.MinReplicas != nil {
		return *a.Spec.MinReplicas
	}
	return 1
}

// tolerances returns how far usage may be from the target without a change.
func tolerances(a *autoscalingv2.HorizontalPodAutoscaler) tolerance {
	t := tolerance{defaultTolerance, defaultTolerance}
	if b := a.Spec.Behavior; b != nil {
		if b.ScaleDown != nil && b.ScaleDown.Tolerance != nil {
			t.down = b.ScaleDown.Tolerance.AsApproximateFloat64()
		}
		if b.ScaleUp != nil && b.ScaleUp.Tolerance != nil {
			t.up = b.ScaleUp.Tolerance.AsApproximateFloat64()
		}
	}
	return t
}

// decide returns the size that the target should have, and the status that says why.
func decide(in seen) decision {
	a, current := in.autoscaler, in.scale.Spec.Replicas
	d := decision{status: *a.Status.DeepCopy(), replicas: current}
	d.status.CurrentReplicas = current
	d.set(in.now, autoscalingv2.AbleToScale, true, note{"SucceededGetScale", "the HPA controller was able to get the target's current scale"})
	in.history.begin(in.now, current)

	fixed, why, ok := unmeasured(a, current)
	switch {
	case ok && current == 0:
		d.set(in.now, autoscalingv2.ScalingActive, false, note{"ScalingDisabled", "scaling is disabled since the replica count of the target is zero"})
		d.status.CurrentMetrics = nil
	case ok:
		d.replicas, d.why, d.rescale = fixed, why, true
		d.status.CurrentMetrics = nil
	case in.unusable != nil:
		d.status.CurrentMetrics = nil
		d.warnings = append(d.warnings, in.unusable.event, warning{"FailedComputeMetricsReplicas", in.unusable.event.message})
		d.set(in.now, autoscalingv2.ScalingActive, false, in.unusable.condition)
		return d
	case !d.measure(in):
		return d
	}
	d.status.DesiredReplicas = d.replicas
	return d
}

// measure decides by the metrics; false when they are not enough to decide by.
func (d *decision) measure(in seen) bool {
	a, current := in.autoscaler, in.scale.Spec.Replicas
	c := &calculator{current: current, running: in.scale.Status.Replicas, pods: in.pods, tolerance: tolerances(a), now: in.now}
	var wanted int32
	var by string
	var failures []*failure
	d.status.CurrentMetrics = make([]autoscalingv2.MetricStatus, len(a.Spec.Metrics)) // in the order of the spec, which kubectl relies on
	for i := range a.Spec.Metrics {
		p, failed := c.evaluate(&a.Spec.Metrics[i], in.readings[i])
		if failed != nil {
			failures = append(failures, failed)
			d.warnings = append(d.warnings, warning{failed.reason, failed.err.Error()})
			continue
		}
		d.status.CurrentMetrics[i] = p.status
		if wanted == 0 || p.replicas > wanted {
			wanted, by = p.replicas, p.name
		}
	}
	// Those that are known may not take replicas away which the unknown ones might need.
	if n := len(failures); n > 0 && (n == len(a.Spec.Metrics) || wanted < current) {
		first := failures[0]
		d.set(in.now, autoscalingv2.ScalingActive, false, note{first.reason, fmt.Sprintf("the HPA was unable to compute the replica count: %v", first.err)})
		d.warnings = append(d.warnings, warning{"FailedComputeMetricsReplicas", fmt.Sprintf("invalid metrics (%d invalid out of %d), first error is: %v", n, len(a.Spec.Metrics), first.whole)})
		return false
	}
	d.set(in.now, autoscalingv2.ScalingActive, true, note{"ValidMetricFound", "the HPA was able to successfully calculate a replica count from " + by})
	if wanted > current {
		d.why = by + " above target"
	} else if wanted < current {
		d.why = "All metrics below target"
	}
	out := limits{behavior: a.Spec.Behavior, least: leastOf(a), most: a.Spec.MaxReplicas, current: current, wanted: wanted}.apply(in.history, in.now)
	d.set(in.now, autoscalingv2.AbleToScale, true, out.able)
	d.set(in.now, autoscalingv2.ScalingLimited, out.limited, out.within)
	d.replicas, d.rescale = out.replicas, out.replicas != current
	return true
}

// done records that the target has its new size.
func (d *decision) done(now time.Time) {
	d.set(now, autoscalingv2.AbleToScale, true, note{"SucceededRescale", fmt.Sprintf("the HPA controller was able to update the target scale to %d", d.replicas)})
	at := metav1.NewTime(now)
	d.status.LastScaleTime = &at
}

// refused records that the target could not be given its new size. before is the status that was stored.
func (d *decision) refused(now time.Time, before *autoscalingv2.HorizontalPodAutoscalerStatus, err error) {
	d.set(now, autoscalingv2.AbleToScale, false, note{"FailedUpdateScale", fmt.Sprintf("the HPA controller was unable to update the target scale: %v", err)})
	d.warnings = append(d.warnings, warning{"FailedRescale", fmt.Sprintf("New size: %d; reason: %s; error: %v", d.replicas, d.why, err)})
	d.status.DesiredReplicas = before.DesiredReplicas
}

func (d *decision) set(now time.Time, kind autoscalingv2.HorizontalPodAutoscalerConditionType, yes bool, n note) {
	status := corev1.ConditionFalse
	if yes {
		status = corev1.ConditionTrue
	}
	d.status.Conditions = kube.SetCondition(d.status.Conditions, autoscalingv2.HorizontalPodAutoscalerCondition{
		Type: kind, Status: status, Reason: n.reason, Message: n.message, LastTransitionTime: metav1.NewTime(now),
	})
}

// noScale returns the decision when the target's scale cannot be read.
func noScale(a *autoscalingv2.HorizontalPodAutoscaler, now time.Time, err error) decision {
	d := decision{status: *a.Status.DeepCopy(), warnings: []warning{{"FailedGetScale", err.Error()}}}
	d.set(now, autoscalingv2.AbleToScale, false, note{"FailedGetScale", fmt.Sprintf("the HPA controller was unable to get the target's current scale: %v", err)})
	return d
}
