package horizontalpodautoscaler

import (
	"errors"
	"fmt"
	"math"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcehelpers "k8s.io/component-helpers/resource"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
)

const (
	// cpuInitialization is how long after its start a pod's CPU usage counts only while it is ready, and measured after it became so.
	cpuInitialization = 5 * time.Minute
	// readinessDelay is how long after its start a pod may become unready and still count as one that was never ready.
	readinessDelay = 30 * time.Second
	// defaultTolerance is the deviation from the target, as a share of it, that changes nothing.
	defaultTolerance = 0.1
)

// podMetric is one value of one pod, in thousandths: millicores, thousandths of bytes.
type podMetric struct {
	at     time.Time
	window time.Duration
	value  int64
}

// podMetrics are by pod name: the pods of one namespace.
type podMetrics map[string]podMetric

// tolerance is how far usage may be from its target, as a share of it, before something is done.
type tolerance struct{ down, up float64 }

func (t tolerance) within(ratio float64) bool { return 1-t.down <= ratio && ratio <= 1+t.up }

// calculator turns metrics into a number of replicas. It is made for one decision.
type calculator struct {
	current   int32         // spec.replicas of the target
	running   int32         // its status.replicas
	pods      []*corev1.Pod // those that its selector matches; read-only
	tolerance tolerance
	now       time.Time
}

// measure is how the metrics of pods compare with their target.
type measure struct {
	resource corev1.ResourceName // "" for a metric that is none
	// of returns what metrics amount to; it is called with at least one.
	of func(podMetrics) (usage, error)
	// full returns what a pod without metrics is taken to use when the others are below their target. It is called after of.
	full func(pod string) int64
}

// usage is what metrics amount to.
type usage struct {
	ratio   float64 // of usage to target: 1 is as wanted
	percent int32   // of the requests; only for a utilization
	average int64   // for each pod, in thousandths
}

// average measures against a target value for each pod, in thousandths.
func average(resource corev1.ResourceName, target int64) measure {
	return measure{
		resource: resource,
		of: func(metrics podMetrics) (usage, error) {
			var total int64
			for _, m := range metrics {
				total += m.value
			}
			mean := total / int64(len(metrics))
			return usage{ratio: float64(mean) / float64(target), average: mean}, nil
		},
		full: func(string) int64 { return target },
	}
}

// utilization measures against a percentage of what the pods request, or one container of each.
func utilization(resource corev1.ResourceName, target int32, pods []*corev1.Pod, container string) measure {
	var requested map[string]int64
	return measure{
		resource: resource,
		of: func(metrics podMetrics) (u usage, err error) {
			if requested == nil {
				if requested, err = requests(pods, container, resource); err != nil {
					return usage{}, err
				}
			}
			var used, wanted, n int64
			for name, m := range metrics {
				if r, ok := requested[name]; ok {
					used, wanted, n = used+m.value, wanted+r, n+1
				}
			}
			if wanted == 0 {
				return usage{}, errors.New("no metrics returned matched known pods")
			}
			percent := int32(used * 100 / wanted)
			return usage{ratio: float64(percent) / float64(target), percent: percent, average: used / n}, nil
		},
		full: func(pod string) int64 { return requested[pod] * int64(max(100, target)) / 100 },
	}
}

// byPods returns how many replicas bring the metrics of pods to their target. Pods without metrics, and those that are starting, are
// counted so that the change is smaller, never so that it is larger or goes the other way. It takes metrics over.
func (c *calculator) byPods(metrics podMetrics, m measure) (int32, usage, error) {
	if len(c.pods) == 0 {
		return 0, usage{}, errors.New("no pods returned by selector while calculating replica count")
	}
	g := c.group(metrics, m.resource)
	for _, name := range append(g.ignored, g.unready...) {
		delete(metrics, name)
	}
	if len(metrics) == 0 {
		return 0, usage{}, errors.New("did not receive metrics for targeted pods (pods might be unready)")
	}
	measured, err := m.of(metrics)
	if err != nil {
		return 0, usage{}, err
	}
	upWithUnready := len(g.unready) > 0 && measured.ratio > 1
	if !upWithUnready && len(g.missing) == 0 {
		if c.tolerance.within(measured.ratio) {
			return c.current, measured, nil
		}
		return ceil(measured.ratio * float64(g.ready)), measured, nil
	}
	for _, name := range g.missing {
		switch {
		case measured.ratio < 1:
			metrics[name] = podMetric{value: m.full(name)}
		case measured.ratio > 1:
			metrics[name] = podMetric{}
		}
	}
	if upWithUnready {
		for _, name := range g.unready {
			metrics[name] = podMetric{}
		}
	}
	assumed, err := m.of(metrics)
	if err != nil {
		return 0, usage{}, err
	}
	if c.tolerance.within(assumed.ratio) || measured.ratio < 1 && assumed.ratio > 1 || measured.ratio > 1 && assumed.ratio < 1 {
		return c.current, measured, nil
	}
	n := ceil(assumed.ratio * float64(len(metrics)))
	if assumed.ratio < 1 && n > c.current || assumed.ratio > 1 && n < c.current {
		return c.current, measured, nil
	}
	return n, measured, nil
}

// groups are pods by how their metrics count.
type groups struct {
	ready                     int
	unready, missing, ignored []string // names
}

func (c *calculator) group(metrics podMetrics, resource corev1.ResourceName) (g groups) {
	for _, p := range c.pods {
		m, ok := metrics[p.Name]
		switch {
		case p.DeletionTimestamp != nil || p.Status.Phase == corev1.PodFailed:
			g.ignored = append(g.ignored, p.Name)
		case p.Status.Phase == corev1.PodPending:
			g.unready = append(g.unready, p.Name)
		case !ok:
			g.missing = append(g.missing, p.Name)
		case resource == corev1.ResourceCPU && c.starting(p, m):
			g.unready = append(g.unready, p.Name)
		default:
			g.ready++
		}
	}
	return g
}

// starting reports whether the CPU usage of a pod is still that of its start.
func (c *calculator) starting(p *corev1.Pod, m podMetric) bool {
	ready := kube.FindCondition(p.Status.Conditions, corev1.PodReady)
	if ready == nil || p.Status.StartTime == nil {
		return true
	}
	since, unready := ready.LastTransitionTime.Time, ready.Status == corev1.ConditionFalse
	if p.Status.StartTime.Add(cpuInitialization).After(c.now) {
		return unready || m.at.Before(since.Add(m.window)) // no whole window since it became ready
	}
	return unready && p.Status.StartTime.Add(readinessDelay).After(since) // never was ready
}

// byRatio returns how many replicas a metric wants that belongs to all pods together.
func (c *calculator) byRatio(ratio float64) (int32, error) {
	switch {
	case c.current == 0:
		return ceil(ratio), nil
	case c.tolerance.within(ratio):
		return c.current, nil
	case len(c.pods) == 0:
		return 0, errors.New("unable to calculate ready pods: no pods returned by selector while calculating replica count")
	}
	ready := 0
	for _, p := range c.pods {
		if p.Status.Phase == corev1.PodRunning && control.PodReady(p) {
			ready++
		}
	}
	return ceil(ratio * float64(ready)), nil
}

// byShare returns how many replicas a metric wants of which each pod is to have a share of target, and what the share is now.
func (c *calculator) byShare(value, target int64) (replicas int32, share int64) {
	replicas = c.running
	if !c.tolerance.within(float64(value) / (float64(target) * float64(c.running))) {
		replicas = ceil(float64(value) / float64(target))
	}
	return replicas, saturate(math.Ceil(float64(value) / float64(max(1, c.running))))
}

// ceil rounds up to a number of replicas that fits its type.
func ceil(f float64) int32 { return int32(min(math.Ceil(f), math.MaxInt32)) }

func saturate(f float64) int64 {
	if f >= math.MaxInt64 {
		return math.MaxInt64
	}
	return int64(f)
}

// sum adds up without overflow.
func sum(values []int64) (total int64) {
	for _, v := range values {
		if v > 0 && total > math.MaxInt64-v {
			return math.MaxInt64
		}
		total += v
	}
	return total
}

// requests returns what each pod requests of a resource, in thousandths: of the pod where it has requests of its own, otherwise of its
// containers together, or of one container.
func requests(pods []*corev1.Pod, container string, resource corev1.ResourceName) (map[string]int64, error) {
	out := make(map[string]int64, len(pods))
	for _, p := range pods {
		if container == "" && resourcehelpers.IsPodLevelRequestsSet(p) {
			q, ok := resourcehelpers.PodRequests(p, resourcehelpers.PodResourcesOptions{})[resource]
			if !ok {
				return nil, fmt.Errorf("missing pod-level request for %s in Pod %s", resource, p.Name)
			}
			out[p.Name] = q.MilliValue()
			continue
		}
		n, err := requestsOfContainers(p, container, resource)
		if err != nil {
			return nil, err
		}
		out[p.Name] = n
	}
	return out, nil
}

func requestsOfContainers(p *corev1.Pod, container string, resource corev1.ResourceName) (total int64, err error) {
	found := container == ""
	add := func(c *corev1.Container) error {
		if container != "" && container != c.Name {
			return nil
		}
		found = true
		q, ok := c.Resources.Requests[resource]
		if !ok {
			return fmt.Errorf("missing request for %s in container %s of Pod %s", resource, c.Name, p.Name)
		}
		total += q.MilliValue()
		return nil
	}
	for i := range p.Spec.Containers {
		if err := add(&p.Spec.Containers[i]); err != nil {
			return 0, err
		}
	}
	for i := range p.Spec.InitContainers {
		c := &p.Spec.InitContainers[i]
		if c.RestartPolicy == nil || *c.RestartPolicy != corev1.ContainerRestartPolicyAlways {
			continue // it has ended when the pod serves
		}
		if err := add(c); err != nil {
			return 0, err
		}
	}
	if !found {
		return 0, fmt.Errorf("container %s not found in Pod %s", container, p.Name)
	}
	return total, nil
}
