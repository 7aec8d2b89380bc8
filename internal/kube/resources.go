package kube

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	helper "k8s.io/component-helpers/resource"
	"k8s.io/kubectl/pkg/util/qos"
)

// withStatus counts of each resource the most of what a pod's spec asks for, what its node has allocated to it, and what it has
// now: while a pod is being resized, none of the three is free for others. A resize that is infeasible does not count.
var withStatus = helper.PodResourcesOptions{UseStatusResources: true, InPlacePodLevelResourcesVerticalScalingEnabled: true}

// PodRequests returns what a pod takes of a node: pod-level requests where it has some, else those of its containers and
// sidecars added up or its largest init container, and its overhead. The formula is upstream's; hub, scheduler and node
// all ask here, so that a pod which was placed on a node is not too large for it there.
func PodRequests(pod *corev1.Pod) corev1.ResourceList {
	return helper.PodRequests(pod, withStatus)
}

// PodLimits returns the limits of a pod by the same formula, those of its overhead included.
func PodLimits(pod *corev1.Pod) corev1.ResourceList {
	return helper.PodLimits(pod, withStatus)
}

// PodSpecRequests returns what a pod would take of a node by its spec alone, its overhead included.
func PodSpecRequests(pod *corev1.Pod) corev1.ResourceList {
	return helper.PodRequests(pod, helper.PodResourcesOptions{})
}

// PodSpecResources returns the requests and limits of a pod by its spec alone, without overhead: what its author asked for.
func PodSpecResources(pod *corev1.Pod) (requests, limits corev1.ResourceList) {
	o := helper.PodResourcesOptions{ExcludeOverhead: true}
	return helper.PodRequests(pod, o), helper.PodLimits(pod, o)
}

// Bounds are what holds a pod as a whole in place. A zero limit is none.
type Bounds struct {
	CPURequest, CPULimit, MemoryLimit resource.Quantity
}

// PodBounds returns the bounds of a pod, by kubelet's rules: the limits of its containers added up bound it where every
// one of them has a limit, or where the pod itself has one. Its status plays no part: a pod is bounded by what it should
// have.
func PodBounds(pod *corev1.Pod) Bounds {
	class := QOS(pod)
	if class == corev1.PodQOSBestEffort {
		return Bounds{}
	}
	cpu, memory := true, true
	limits := helper.PodLimits(pod, helper.PodResourcesOptions{
		ContainerFn: func(list corev1.ResourceList, _ helper.ContainerType) {
			cpu = cpu && !list.Cpu().IsZero()
			memory = memory && !list.Memory().IsZero()
		},
	})
	if own := PodLevelLimits(pod); own != nil {
		cpu = cpu || !own.Cpu().IsZero()
		memory = memory || !own.Memory().IsZero()
	}
	requests := PodSpecRequests(pod)
	out := Bounds{CPURequest: *requests.Cpu()}
	if cpu || class == corev1.PodQOSGuaranteed {
		out.CPULimit = *limits.Cpu()
	}
	if memory || class == corev1.PodQOSGuaranteed {
		out.MemoryLimit = *limits.Memory()
	}
	return out
}

// PodLevelLimits returns the limits that a pod has as a whole, or nil.
func PodLevelLimits(pod *corev1.Pod) corev1.ResourceList {
	if !helper.IsPodLevelResourcesSet(pod) {
		return nil
	}
	return pod.Spec.Resources.Limits
}

// SpareMemoryRequest returns each container's share, in bytes, of a pod-level memory request that the containers'
// own requests leave over; 0 for a pod without one.
func SpareMemoryRequest(pod *corev1.Pod) int64 {
	if !helper.IsPodLevelRequestsSet(pod) || pod.Spec.Resources.Requests.Memory().IsZero() {
		return 0
	}
	used := helper.AggregateContainerRequests(pod, helper.PodResourcesOptions{})
	spare := pod.Spec.Resources.Requests.Memory().Value() - used.Memory().Value()
	return spare / int64(len(pod.Spec.Containers)+len(pod.Spec.InitContainers))
}

// QOS returns a pod's quality-of-service class: the one in its status, or else what follows from its spec.
func QOS(pod *corev1.Pod) corev1.PodQOSClass { return qos.GetPodQOS(pod) }

// HostPort is a port of the node itself that a pod takes. An empty IP is every address.
type HostPort struct {
	IP       string
	Protocol corev1.Protocol
	Port     int32
}

// HostPorts returns the ports of the node that a pod takes for as long as it is there: those of its containers and
// sidecars.
func HostPorts(spec *corev1.PodSpec) (ports []HostPort) {
	add := func(c *corev1.Container) {
		for _, p := range c.Ports {
			number := p.HostPort
			if spec.HostNetwork && number == 0 {
				number = p.ContainerPort
			}
			if number <= 0 {
				continue
			}
			hp := HostPort{IP: p.HostIP, Protocol: p.Protocol, Port: number}
			if hp.IP == "0.0.0.0" || hp.IP == "::" {
				hp.IP = ""
			}
			if hp.Protocol == "" {
				hp.Protocol = corev1.ProtocolTCP
			}
			ports = append(ports, hp)
		}
	}
	for i := range spec.InitContainers { // sidecars hold their ports as long as the others
		if IsSidecar(&spec.InitContainers[i]) {
			add(&spec.InitContainers[i])
		}
	}
	for i := range spec.Containers {
		add(&spec.Containers[i])
	}
	return ports
}

// Clashes reports whether two pods cannot have a and b on the same node.
func (a HostPort) Clashes(b HostPort) bool {
	return a.Port == b.Port && a.Protocol == b.Protocol && (a.IP == "" || b.IP == "" || a.IP == b.IP)
}

// IsSidecar reports whether an init container runs beside the others instead of before them.
func IsSidecar(c *corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}
