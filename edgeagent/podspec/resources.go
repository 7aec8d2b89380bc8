package podspec

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"petrel.dev/petrel/edgeagent/cruntime"
	"petrel.dev/petrel/internal/kube"
)

// Scores for the kernel's out-of-memory killer, between -1000 (never) and 1000 (first); kubelet's.
const (
	oomGuaranteed = -997
	oomBestEffort = 1000
)

// cpuPeriod is that of CPU quotas, in microseconds.
const cpuPeriod = 100_000

// resourcesOf turns a container's requests and limits into the kernel's units. Where it has no limit, its pod's holds.
// memory is the node's, in bytes.
func resourcesOf(pod *corev1.Pod, c *corev1.Container, memory int64) cruntime.Resources {
	cpuLimit, memoryLimit := c.Resources.Limits.Cpu(), c.Resources.Limits.Memory()
	if own := kube.PodLevelLimits(pod); own != nil {
		if cpuLimit.IsZero() {
			cpuLimit = own.Cpu()
		}
		if memoryLimit.IsZero() {
			memoryLimit = own.Memory()
		}
	}
	cpu, asked := c.Resources.Requests[corev1.ResourceCPU]
	if !asked { // the API's default for a request is the limit
		cpu = *cpuLimit
	}
	out := cruntime.Resources{CPUShares: sharesOf(cpu.MilliValue()), MemoryLimit: memoryLimit.Value(), OOMScoreAdj: oomScore(pod, c, memory)}
	limitCPU(&out, cpuLimit)
	return out
}

// limitCPU sets the quota; a limit of zero is none.
func limitCPU(r *cruntime.Resources, limit *resource.Quantity) {
	if !limit.IsZero() {
		// The kernel takes no quota below one millisecond.
		r.CPUPeriod, r.CPUQuota = cpuPeriod, max(limit.MilliValue()*cpuPeriod/1000, 1000)
	}
}

// sharesOf turns thousandths of a CPU into cpu.shares.
func sharesOf(milli int64) uint64 {
	// 1024 shares are one CPU; 2 and 262144 are the kernel's bounds.
	return uint64(min(max(milli*1024/1000, 2), 262144))
}

// podResources bounds a pod as a whole. pids is how many processes and threads it may have; 0: as many as it likes.
func podResources(pod *corev1.Pod, pids int64) cruntime.Resources {
	b := kube.PodBounds(pod)
	out := cruntime.Resources{CPUShares: sharesOf(b.CPURequest.MilliValue()), MemoryLimit: b.MemoryLimit.Value(), PidsLimit: pids}
	limitCPU(&out, &b.CPULimit)
	return out
}

// oomScore returns how willingly the kernel's out-of-memory killer takes a container: the less of the node's memory it
// has asked for, the sooner. A sidecar goes no sooner than the containers that it serves.
func oomScore(pod *corev1.Pod, c *corev1.Container, memory int64) int {
	if isCritical(pod) {
		return oomGuaranteed
	}
	switch kube.QOS(pod) {
	case corev1.PodQOSGuaranteed:
		return oomGuaranteed
	case corev1.PodQOSBestEffort:
		return oomBestEffort
	}
	if memory <= 0 { // not known: just before the pods that have asked for nothing
		return oomBestEffort - 1
	}
	asked := c.Resources.Requests.Memory().Value()
	if kube.IsSidecar(c) && containerIn(pod.Spec.InitContainers, c.Name) && len(pod.Spec.Containers) > 0 {
		least := pod.Spec.Containers[0].Resources.Requests.Memory().Value()
		for i := range pod.Spec.Containers {
			least = min(least, pod.Spec.Containers[i].Resources.Requests.Memory().Value())
		}
		asked = max(asked, least)
	}
	score := 1000 - 1000*(asked+kube.SpareMemoryRequest(pod))/memory
	return int(min(max(score, 1000+oomGuaranteed), oomBestEffort-1))
}

func containerIn(list []corev1.Container, name string) bool {
	for i := range list {
		if list[i].Name == name {
			return true
		}
	}
	return false
}

// isCritical reports whether the node itself depends on the pod.
func isCritical(pod *corev1.Pod) bool {
	return pod.Spec.PriorityClassName == "system-node-critical"
}
