package horizontalpodautoscaler

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	custom "k8s.io/metrics/pkg/apis/custom_metrics/v1beta2"
	external "k8s.io/metrics/pkg/apis/external_metrics/v1beta1"
	metrics "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"petrel.dev/petrel/internal/kube"
)

// Metrics is where the values come from.
type Metrics interface {
	// Pods returns what pods use by the measurement of their nodes. A pod that is not measured is left out.
	Pods(ctx context.Context, pods []*corev1.Pod) []*metrics.PodMetrics
	// Get reads a path below /apis/GROUP/VERSION/ of a server behind the hub, as JSON. served is false when no APIService has it.
	Get(ctx context.Context, gv schema.GroupVersion, path string, query url.Values) (body []byte, served bool, err error)
	// Plural returns the resource of a kind that is served.
	Plural(kind schema.GroupKind) (schema.GroupResource, bool)
}

// defaultWindow is the window of a custom metric that has none.
const defaultWindow = time.Minute

var (
	// customVersions are those of the custom metrics API, the preferred one first. They differ in nothing that is read here.
	customVersions = []schema.GroupVersion{custom.SchemeGroupVersion, {Group: custom.SchemeGroupVersion.Group, Version: "v1beta1"}}
)

// reading is what was read for one metric of an autoscaler: the value for each pod, or values, or err.
type reading struct {
	pods   podMetrics
	values []int64 // in thousandths
	err    error
}

// read reads one metric. The error says what could not be read, in upstream's words.
func (c *Controller) read(ctx context.Context, namespace string, m *autoscalingv2.MetricSpec, selector labels.Selector, pods []*corev1.Pod, used func() []*metrics.PodMetrics) (r reading) {
	switch m.Type {
	case autoscalingv2.ResourceMetricSourceType:
		r.pods, r.err = resourceMetrics(used(), m.Resource.Name, "")
	case autoscalingv2.ContainerResourceMetricSourceType:
		r.pods, r.err = resourceMetrics(used(), m.ContainerResource.Name, m.ContainerResource.Container)
	case autoscalingv2.PodsMetricSourceType:
		r.pods, r.err = c.podsMetric(ctx, namespace, m.Pods.Metric, selector)
	case autoscalingv2.ObjectMetricSourceType:
		r.values, r.err = c.objectMetric(ctx, namespace, m.Object)
	case autoscalingv2.ExternalMetricSourceType:
		r.values, r.err = c.externalMetric(ctx, namespace, m.External.Metric)
	}
	return r
}

// resourceMetrics picks one resource from the measurements of pods; of one container, or of all of a pod together.
func resourceMetrics(used []*metrics.PodMetrics, resource corev1.ResourceName, container string) (podMetrics, error) {
	if len(used) == 0 {
		return nil, fmt.Errorf("unable to get metrics for resource %s: no node has measured any of the pods", resource)
	}
	out := make(podMetrics, len(used))
	for _, m := range used {
		var total int64
		whole, found := true, false
		for _, c := range m.Containers {
			if container != "" && c.Name != container {
				continue
			}
			q, ok := c.Usage[resource]
			whole, found, total = whole && ok, true, total+q.MilliValue()
		}
		if whole && found {
			out[m.Name] = podMetric{at: m.Timestamp.Time, window: m.Window.Duration, value: total}
		}
	}
	return out, nil
}

func (c *Controller) podsMetric(ctx context.Context, namespace string, id autoscalingv2.MetricIdentifier, selector labels.Selector) (podMetrics, error) {
	list, err := c.custom(ctx, "namespaces/"+url.PathEscape(namespace)+"/pods/*/"+url.PathEscape(id.Name), selector, id.Selector)
	if err == nil && len(list.Items) == 0 {
		err = errors.New("no metrics returned from custom metrics API")
	}
	if err != nil {
		return nil, fmt.Errorf("unable to get metric %s: %w", id.Name, err)
	}
	out := make(podMetrics, len(list.Items))
	for i := range list.Items {
		m := &list.Items[i]
		window := defaultWindow
		if m.WindowSeconds != nil {
			window = kube.Seconds(*m.WindowSeconds)
		}
		out[m.DescribedObject.Name] = podMetric{at: m.Timestamp.Time, window: window, value: m.Value.MilliValue()}
	}
	return out, nil
}

func (c *Controller) objectMetric(ctx context.Context, namespace string, m *autoscalingv2.ObjectMetricSource) ([]int64, error) {
	ref := m.DescribedObject
	kind := schema.FromAPIVersionAndKind(ref.APIVersion, ref.Kind).GroupKind()
	path := "namespaces/" + url.PathEscape(namespace) + "/"
	if kind == (schema.GroupKind{Kind: "Namespace"}) {
		path += "metrics/" + url.PathEscape(m.Metric.Name) // its own: another one's is not the autoscaler's to read
	} else {
		resource, ok := c.metrics.Plural(kind)
		if !ok {
			return nil, fmt.Errorf("unable to map kind %s to resource: no matches for kind %q in group %q", kind, kind.Kind, kind.Group)
		}
		path += resource.String() + "/" + url.PathEscape(ref.Name) + "/" + url.PathEscape(m.Metric.Name)
	}
	list, err := c.custom(ctx, path, nil, m.Metric.Selector)
	if err == nil && len(list.Items) != 1 {
		err = fmt.Errorf("the custom metrics API server returned %d results when we asked for exactly one", len(list.Items))
	}
	if err != nil {
		return nil, fmt.Errorf("unable to get metric %s: %w on %s %s/%s", m.Metric.Name, err, ref.Kind, namespace, ref.Name)
	}
	return []int64{list.Items[0].Value.MilliValue()}, nil
}

// custom reads from the custom metrics API, in the first version that is served.
func (c *Controller) custom(ctx context.Context, path string, pods labels.Selector, of *metav1.LabelSelector) (*custom.MetricValueList, error) {
	selected, err := metav1.LabelSelectorAsSelector(of)
	if err != nil {
		return nil, err
	}
	query := url.Values{}
	if pods != nil {
		query.Set("labelSelector", pods.String())
	}
	if of != nil {
		query.Set("metricLabelSelector", selected.String())
	}
	for _, gv := range customVersions {
		body, served, err := c.metrics.Get(ctx, gv, path, query)
		if !served {
			continue
		}
		var list custom.MetricValueList
		if err == nil {
			err = json.Unmarshal(body, &list)
		}
		if err != nil {
			return nil, fmt.Errorf("unable to fetch metrics from custom metrics API: %w", err)
		}
		return &list, nil
	}
	return nil, fmt.Errorf("unable to fetch metrics from custom metrics API: no custom metrics API (%s) registered", custom.SchemeGroupVersion.Group)
}

func (c *Controller) externalMetric(ctx context.Context, namespace string, id autoscalingv2.MetricIdentifier) ([]int64, error) {
	selected, err := metav1.LabelSelectorAsSelector(id.Selector)
	if err != nil {
		return nil, err
	}
	query := url.Values{}
	if id.Selector != nil {
		query.Set("labelSelector", selected.String())
	}
	body, served, err := c.metrics.Get(ctx, external.SchemeGroupVersion, "namespaces/"+url.PathEscape(namespace)+"/"+url.PathEscape(id.Name), query)
	var list external.ExternalMetricValueList
	switch {
	case !served:
		err = fmt.Errorf("unable to fetch metrics from external metrics API: no external metrics API (%s) registered", external.SchemeGroupVersion.Group)
	case err == nil:
		err = json.Unmarshal(body, &list)
		fallthrough
	default:
		if err != nil {
			err = fmt.Errorf("unable to fetch metrics from external metrics API: %w", err)
		} else if len(list.Items) == 0 {
			err = errors.New("no metrics returned from external metrics API")
		}
	}
	if err != nil {
		return nil, fmt.Errorf("unable to get external metric %s/%s/%s: %w", namespace, id.Name, metav1.FormatLabelSelector(id.Selector), err)
	}
	values := make([]int64, len(list.Items))
	for i := range list.Items {
		values[i] = list.Items[i].Value.MilliValue()
	}
	return values, nil
}
