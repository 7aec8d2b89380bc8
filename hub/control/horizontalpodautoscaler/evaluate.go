package horizontalpodautoscaler

import (
	"errors"
	"fmt"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// proposal is what one metric wants.
type proposal struct {
	replicas int32
	name     string // of the metric, as Events and conditions write it
	status   autoscalingv2.MetricStatus
}

// failure is why a metric wants nothing.
type failure struct {
	reason string // of the condition and the Event
	err    error  // what both say
	whole  error  // the same, with the metric that it is about
}

// evaluate returns what one metric wants by what was read for it.
func (c *calculator) evaluate(m *autoscalingv2.MetricSpec, r reading) (proposal, *failure) {
	switch m.Type {
	case autoscalingv2.ResourceMetricSourceType:
		p, err := c.resource(m.Resource.Name, "", m.Resource.Target, r)
		if err != nil {
			return p, &failure{"FailedGetResourceMetric", err, fmt.Errorf("failed to get %s resource metric value: %w", m.Resource.Name, err)}
		}
		return p, nil
	case autoscalingv2.ContainerResourceMetricSourceType:
		p, err := c.resource(m.ContainerResource.Name, m.ContainerResource.Container, m.ContainerResource.Target, r)
		if err != nil {
			return p, &failure{"FailedGetContainerResourceMetric", err, fmt.Errorf("failed to get %s container metric value: %w", m.ContainerResource.Container, err)}
		}
		return p, nil
	case autoscalingv2.PodsMetricSourceType:
		p, err := c.podsMetric(m.Pods, r)
		if err != nil {
			return p, &failure{"FailedGetPodsMetric", err, fmt.Errorf("failed to get pods metric value: %w", err)}
		}
		return p, nil
	case autoscalingv2.ObjectMetricSourceType:
		p, err := c.objectMetric(m.Object, r)
		if err != nil {
			return p, &failure{"FailedGetObjectMetric", err, fmt.Errorf("failed to get object metric value: %w", err)}
		}
		return p, nil
	case autoscalingv2.ExternalMetricSourceType:
		p, err := c.externalMetric(m.External, r)
		if err != nil {
			return p, &failure{"FailedGetExternalMetric", err, fmt.Errorf("failed to get %s external metric value: %w", m.External.Metric.Name, err)}
		}
		return p, nil
	}
	err := fmt.Errorf("unknown metric source type %q", m.Type)
	return proposal{}, &failure{"InvalidMetricSourceType", err, err}
}

// resource is for a resource of whole pods, or of one container of each.
func (c *calculator) resource(name corev1.ResourceName, container string, target autoscalingv2.MetricTarget, r reading) (proposal, error) {
	var m measure
	var p proposal
	var what string
	switch {
	case target.AverageValue != nil:
		m, what, p.name = average(name, target.AverageValue.MilliValue()), "usage", fmt.Sprintf("%s resource", name)
	case target.AverageUtilization != nil:
		m, what, p.name = utilization(name, *target.AverageUtilization, c.pods, container), "utilization", fmt.Sprintf("%s resource utilization (percentage of request)", name)
		if container != "" {
			p.name = fmt.Sprintf("%s container resource utilization (percentage of request)", name)
		}
	default:
		return p, errors.New("invalid resource metric source: neither an average utilization target nor an average value (usage) target was set")
	}
	var used usage
	err := r.err
	if err == nil {
		p.replicas, used, err = c.byPods(r.pods, m)
	}
	if err != nil {
		return p, fmt.Errorf("failed to get %s %s: %w", name, what, err)
	}
	format := resource.DecimalSI
	if name == corev1.ResourceMemory {
		format = resource.BinarySI
	}
	current := autoscalingv2.MetricValueStatus{AverageValue: resource.NewMilliQuantity(used.average, format)}
	if target.AverageValue == nil {
		current.AverageUtilization = &used.percent
	}
	p.status.Type = autoscalingv2.ResourceMetricSourceType
	if container == "" {
		p.status.Resource = &autoscalingv2.ResourceMetricStatus{Name: name, Current: current}
		return p, nil
	}
	p.status.Type = autoscalingv2.ContainerResourceMetricSourceType
	p.status.ContainerResource = &autoscalingv2.ContainerResourceMetricStatus{Name: name, Container: container, Current: current}
	return p, nil
}

func (c *calculator) podsMetric(m *autoscalingv2.PodsMetricSource, r reading) (p proposal, err error) {
	if r.err != nil {
		return p, r.err
	}
	if m.Target.AverageValue == nil {
		return p, errors.New("invalid pods metric source: no average value target was set")
	}
	replicas, used, err := c.byPods(r.pods, average("", m.Target.AverageValue.MilliValue()))
	if err != nil {
		return p, err
	}
	return proposal{replicas, "pods metric " + m.Metric.Name, autoscalingv2.MetricStatus{
		Type: autoscalingv2.PodsMetricSourceType,
		Pods: &autoscalingv2.PodsMetricStatus{Metric: m.Metric, Current: autoscalingv2.MetricValueStatus{AverageValue: milli(used.average)}},
	}}, nil
}

func (c *calculator) objectMetric(m *autoscalingv2.ObjectMetricSource, r reading) (p proposal, err error) {
	current, replicas, err := c.together(m.Target, r)
	if errors.Is(err, errNoTarget) {
		return p, errors.New("invalid object metric source: neither a value target nor an average value target was set")
	}
	if err != nil {
		return p, err
	}
	name := fmt.Sprintf("%s metric %s", m.DescribedObject.Kind, m.Metric.Name)
	if current.AverageValue != nil {
		name = externalName(m.Metric) // so upstream, in its Events too
	}
	return proposal{replicas, name, autoscalingv2.MetricStatus{
		Type:   autoscalingv2.ObjectMetricSourceType,
		Object: &autoscalingv2.ObjectMetricStatus{DescribedObject: m.DescribedObject, Metric: m.Metric, Current: current},
	}}, nil
}

func (c *calculator) externalMetric(m *autoscalingv2.ExternalMetricSource, r reading) (p proposal, err error) {
	current, replicas, err := c.together(m.Target, r)
	if errors.Is(err, errNoTarget) {
		return p, errors.New("invalid external metric source: neither a value target nor an average value target was set")
	}
	if err != nil {
		return p, err
	}
	return proposal{replicas, externalName(m.Metric), autoscalingv2.MetricStatus{
		Type:     autoscalingv2.ExternalMetricSourceType,
		External: &autoscalingv2.ExternalMetricStatus{Metric: m.Metric, Current: current},
	}}, nil
}

func externalName(id autoscalingv2.MetricIdentifier) string {
	return fmt.Sprintf("external metric %s(%s)", id.Name, metav1.FormatLabelSelector(id.Selector))
}

// errNoTarget says that a metric has no target value. Validation refuses such an object.
var errNoTarget = errors.New("no target")

// together is for a metric that belongs to all pods together: its value is compared with the target, or the share of each pod.
func (c *calculator) together(target autoscalingv2.MetricTarget, r reading) (current autoscalingv2.MetricValueStatus, replicas int32, err error) {
	if target.AverageValue == nil && target.Value == nil {
		return current, 0, errNoTarget
	}
	if r.err != nil {
		return current, 0, r.err
	}
	value := sum(r.values)
	if target.AverageValue != nil {
		replicas, share := c.byShare(value, target.AverageValue.MilliValue())
		current.AverageValue = milli(share)
		return current, replicas, nil
	}
	if replicas, err = c.byRatio(float64(value) / float64(target.Value.MilliValue())); err != nil {
		return current, 0, err
	}
	current.Value = milli(value)
	return current, replicas, nil
}

func milli(n int64) *resource.Quantity { return resource.NewMilliQuantity(n, resource.DecimalSI) }
