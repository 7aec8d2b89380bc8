package podspec

import (
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/edgeagent/cruntime"
	"petrel.dev/petrel/internal/kube"
)

// Share is what a container has of CPU and memory, in the words of its pod's spec. The runtime keeps it with the container, so that
// it is known, also to the next life of the agent, what a container was last given: the kernel's own numbers are rounded, and have
// no memory request.
type Share struct {
	Requests corev1.ResourceList `json:"requests,omitempty"`
	Limits   corev1.ResourceList `json:"limits,omitempty"`
	// Pod are the limits of the pod as a whole that bound the container, because it has none of its own.
	Pod corev1.ResourceList `json:"pod,omitempty"`
}

// shared are the resources that a container can be given more or less of while it runs.
var shared = []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory}

// ShareOf returns what a container of a pod is to have.
func ShareOf(pod *corev1.Pod, c *corev1.Container) Share {
	s := Share{Requests: corev1.ResourceList{}, Limits: corev1.ResourceList{}, Pod: corev1.ResourceList{}}
	own := kube.PodLevelLimits(pod)
	for _, name := range shared {
		if q, ok := c.Resources.Requests[name]; ok {
			s.Requests[name] = q
		}
		if q, ok := c.Resources.Limits[name]; ok {
			s.Limits[name] = q
		} else if q, ok := own[name]; ok {
			s.Pod[name] = q
		}
	}
	return s
}

// ParseShare reads what String has written. known is false for a container of an agent that did not write it.
func ParseShare(text string) (s Share, known bool) {
	return s, text != "" && json.Unmarshal([]byte(text), &s) == nil
}

func (s Share) String() string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // these types always encode
	}
	return string(b)
}

// Differs returns the resources of which other is more or less, whatever they are written like.
func (s Share) Differs(other Share) (names []corev1.ResourceName) {
	for _, name := range shared {
		if !equal(s.Requests, other.Requests, name) || !equal(s.Limits, other.Limits, name) || !equal(s.Pod, other.Pod, name) {
			names = append(names, name)
		}
	}
	return names
}

func equal(a, b corev1.ResourceList, name corev1.ResourceName) bool {
	x, y := a[name], b[name]
	return x.Cmp(y) == 0
}

// In returns resources with what s has of CPU and memory in place of their own.
func (s Share) In(r corev1.ResourceRequirements) corev1.ResourceRequirements {
	out := *r.DeepCopy()
	put := func(list *corev1.ResourceList, from corev1.ResourceList) {
		for _, name := range shared {
			q, ok := from[name]
			switch {
			case !ok:
				delete(*list, name)
			case *list == nil:
				*list = corev1.ResourceList{name: q}
			default:
				(*list)[name] = q
			}
		}
	}
	put(&out.Requests, s.Requests)
	put(&out.Limits, s.Limits)
	return out
}

// BoundsText names what bounds a pod as a whole: equal texts, equal bounds.
func BoundsText(pod *corev1.Pod) string {
	b := kube.PodBounds(pod)
	return fmt.Sprintf("%d/%d/%d", b.CPURequest.MilliValue(), b.CPULimit.MilliValue(), b.MemoryLimit.Value())
}

// Bounds returns what bounds a pod as a whole.
func (n Node) Bounds(pod *corev1.Pod) cruntime.Resources { return podResources(pod, n.PodPids) }

// Resources returns what bounds a container of a pod.
func (n Node) Resources(pod *corev1.Pod, c *corev1.Container) cruntime.Resources {
	return resourcesOf(pod, c, n.Memory)
}
