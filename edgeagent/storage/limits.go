package storage

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// PodUsage is what a pod has on the node's disk.
type PodUsage struct {
	Containers map[string]int64 // by name, in bytes: writable layer and logs
	Volumes    map[string]int64 // by name, in bytes: emptyDirs on the disk
	// Unmeasurable says why a part of it could not be measured; empty: all was.
	Unmeasurable string
}

// Total is the pod's usage in bytes.
func (u PodUsage) Total() int64 {
	var sum int64
	for _, n := range u.Containers {
		sum += n
	}
	for _, n := range u.Volumes {
		sum += n
	}
	return sum
}

// OnDisk reports whether a volume is an emptyDir on the node's disk.
func OnDisk(v *corev1.Volume) bool {
	return v.EmptyDir != nil && v.EmptyDir.Medium == corev1.StorageMediumDefault
}

// Limited reports whether a pod bounds what it may have on the disk.
func Limited(pod *corev1.Pod) bool {
	for i := range pod.Spec.Volumes {
		if v := &pod.Spec.Volumes[i]; OnDisk(v) && sizeLimit(v) > 0 {
			return true
		}
	}
	return podLimit(pod) != nil
}

func sizeLimit(v *corev1.Volume) int64 {
	if v.EmptyDir.SizeLimit == nil {
		return 0
	}
	return v.EmptyDir.SizeLimit.Value()
}

func containerLimit(c *corev1.Container) *resource.Quantity {
	if q, ok := c.Resources.Limits[corev1.ResourceEphemeralStorage]; ok && !q.IsZero() {
		return &q
	}
	return nil
}

// podLimit is the sum of the containers' limits, and of the largest that any one init container needs; nil without any.
func podLimit(pod *corev1.Pod) *resource.Quantity {
	var sum, most *resource.Quantity
	add := func(q *resource.Quantity) {
		if sum == nil {
			sum = &resource.Quantity{Format: q.Format}
		}
		sum.Add(*q)
	}
	for i := range pod.Spec.Containers {
		if q := containerLimit(&pod.Spec.Containers[i]); q != nil {
			add(q)
		}
	}
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		q := containerLimit(c)
		switch {
		case q == nil:
		case c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways:
			add(q)
		case most == nil || most.Cmp(*q) < 0:
			most = q
		}
	}
	if most != nil && (sum == nil || sum.Cmp(*most) < 0) {
		return most
	}
	return sum
}

// Exceeded returns why a pod is to be evicted for what it has on the disk, in kubelet's words; empty: it keeps its limits.
func Exceeded(pod *corev1.Pod, u PodUsage) string {
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if OnDisk(v) && sizeLimit(v) > 0 && u.Volumes[v.Name] > sizeLimit(v) {
			return fmt.Sprintf("Usage of EmptyDir volume %q exceeds the limit %q. ", v.Name, v.EmptyDir.SizeLimit.String())
		}
	}
	if q := podLimit(pod); q != nil && u.Total() > q.Value() {
		return fmt.Sprintf("Pod ephemeral local storage usage exceeds the total limit of containers %s. ", q.String())
	}
	for _, list := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range list {
			if q := containerLimit(&list[i]); q != nil && u.Containers[list[i].Name] > q.Value() {
				return fmt.Sprintf("Container %s exceeded its local ephemeral storage limit %q. ", list[i].Name, q.String())
			}
		}
	}
	if u.Unmeasurable != "" && Limited(pod) {
		return fmt.Sprintf("Pod ephemeral local storage usage %s. ", u.Unmeasurable)
	}
	return ""
}

// Headroom is how many bytes a pod can still write before it is over one of its limits.
func Headroom(pod *corev1.Pod, u PodUsage) int64 {
	left := int64(1) << 62
	for i := range pod.Spec.Volumes {
		if v := &pod.Spec.Volumes[i]; OnDisk(v) && sizeLimit(v) > 0 {
			left = min(left, sizeLimit(v)-u.Volumes[v.Name])
		}
	}
	if q := podLimit(pod); q != nil {
		left = min(left, q.Value()-u.Total())
	}
	for _, list := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range list {
			if q := containerLimit(&list[i]); q != nil {
				left = min(left, q.Value()-u.Containers[list[i].Name])
			}
		}
	}
	return left
}

// Measured is the last measurement of a pod with limits.
type Measured struct {
	At, Took time.Duration // At: since any fixed moment
	Free     int64         // bytes free on the disk then
	Headroom int64         // bytes
	Interval time.Duration // until the next, unless the disk says sooner
}

// How often a pod with limits is measured. A measurement takes at most a hundredth of the time.
const (
	// MeasureTick is how often the disk's free space is compared, and the shortest interval.
	MeasureTick = 10 * time.Second
	maxInterval = 5 * time.Minute
	costFactor  = 100
)

// Due reports whether a pod is to be measured now: when the disk has lost as much as the pod had left, or half of it, or
// when the interval is over and the disk has changed at all. On a disk that nobody writes to, nothing is measured.
func (m Measured) Due(now time.Duration, free int64) bool {
	switch age := now - m.At; {
	case age < costFactor*m.Took:
		return false
	case m.Free-free >= max(m.Headroom/2, 1):
		return true
	case age < m.Interval:
		return false
	default:
		return m.Free != free || age >= maxInterval
	}
}

// Next returns the interval after a measurement: longer each time that nothing has changed.
func (m Measured) Next(changed bool) time.Duration {
	if changed {
		return MeasureTick
	}
	return min(max(2*m.Interval, MeasureTick), maxInterval)
}
