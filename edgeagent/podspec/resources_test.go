package podspec

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"petrel.dev/petrel/edgeagent/cruntime"
	"petrel.dev/petrel/internal/kube"
)

// need is a container's or a pod's resources; "" is none, "0" is a limit that is no limit.
func need(cpuRequest, memoryRequest, cpuLimit, memoryLimit string) corev1.ResourceRequirements {
	var r corev1.ResourceRequirements
	set := func(list *corev1.ResourceList, name corev1.ResourceName, text string) {
		if text == "" {
			return
		}
		if *list == nil {
			*list = corev1.ResourceList{}
		}
		(*list)[name] = resource.MustParse(text)
	}
	set(&r.Requests, "cpu", cpuRequest)
	set(&r.Requests, "memory", memoryRequest)
	set(&r.Limits, "cpu", cpuLimit)
	set(&r.Limits, "memory", memoryLimit)
	return r
}

const gib = 1 << 30

// TestPodBounds covers class, cgroup of the pod and score of its first container, as upstream's formulas have them. The first
// three are public cases that went wrong.
func TestPodBounds(t *testing.T) {
	always := corev1.ContainerRestartPolicyAlways
	tests := []struct {
		name                string
		pod                 *corev1.ResourceRequirements
		init, sidecars, own []corev1.ResourceRequirements
		overhead            corev1.ResourceList
		class               corev1.PodQOSClass
		memory, quota       int64
		shares              uint64
		score               int // of a node with 4 GiB
	}{
		{name: "a CPU limit of zero is none", own: []corev1.ResourceRequirements{need("", "64Mi", "0", "64Mi")},
			class: "Burstable", memory: 64 << 20, shares: 2, score: 985},
		{name: "so is a memory limit", own: []corev1.ResourceRequirements{need("100m", "64Mi", "100m", "64Mi"), need("100m", "0", "100m", "0")},
			class: "Burstable", quota: 20_000, shares: 204, score: 985},
		{name: "resources of the pod", pod: &corev1.ResourceRequirements{Requests: need("100m", "20Mi", "", "").Requests, Limits: need("", "", "200m", "40Mi").Limits},
			own: []corev1.ResourceRequirements{{}}, class: "Burstable", memory: 40 << 20, quota: 20_000, shares: 102, score: 996},
		{name: "a sidecar runs beside the others", sidecars: []corev1.ResourceRequirements{need("10m", "30Mi", "", "60Mi")},
			own: []corev1.ResourceRequirements{need("10m", "30Mi", "", "60Mi")}, class: "Burstable", memory: 120 << 20, shares: 20, score: 993},
		{name: "an init container before them", init: []corev1.ResourceRequirements{need("10m", "30Mi", "", "100Mi")},
			own: []corev1.ResourceRequirements{need("10m", "30Mi", "", "60Mi")}, class: "Burstable", memory: 100 << 20, shares: 10, score: 993},
		{name: "one without a limit leaves the pod without", own: []corev1.ResourceRequirements{need("10m", "30Mi", "1", "60Mi"), {}},
			class: "Burstable", shares: 10, score: 993},
		{name: "unless the pod has one", pod: &corev1.ResourceRequirements{Limits: need("", "", "", "80Mi").Limits},
			own: []corev1.ResourceRequirements{need("10m", "30Mi", "1", "60Mi"), {}}, class: "Burstable", memory: 80 << 20, shares: 10, score: 993},
		{name: "overhead", own: []corev1.ResourceRequirements{need("100m", "64Mi", "100m", "64Mi")},
			overhead: corev1.ResourceList{"cpu": resource.MustParse("50m"), "memory": resource.MustParse("8Mi")},
			class:    "Guaranteed", memory: 72 << 20, quota: 15_000, shares: 153, score: -997},
		{name: "guaranteed as a whole", pod: &corev1.ResourceRequirements{Requests: need("1", "1Gi", "", "").Requests, Limits: need("", "", "1", "1Gi").Limits},
			own: []corev1.ResourceRequirements{{}}, class: "Guaranteed", memory: gib, quota: 100_000, shares: 1024, score: -997},
		{name: "nothing", own: []corev1.ResourceRequirements{{}}, class: "BestEffort", shares: 2, score: 1000},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			pod := &corev1.Pod{Spec: corev1.PodSpec{Resources: tt.pod, Overhead: tt.overhead}}
			for _, r := range tt.init {
				pod.Spec.InitContainers = append(pod.Spec.InitContainers, corev1.Container{Name: "init", Resources: r})
			}
			for _, r := range tt.sidecars {
				pod.Spec.InitContainers = append(pod.Spec.InitContainers, corev1.Container{Name: "side", Resources: r, RestartPolicy: &always})
			}
			for _, r := range tt.own {
				pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: "own", Resources: r})
			}
			if got := kube.QOS(pod); got != tt.class {
				t.Errorf("class %s; want %s", got, tt.class)
			}
			want := cruntime.Resources{CPUShares: tt.shares, CPUQuota: tt.quota, MemoryLimit: tt.memory, PidsLimit: 7}
			if tt.quota > 0 {
				want.CPUPeriod = cpuPeriod
			}
			if got := podResources(pod, 7); got != want {
				t.Errorf("bounds %+v; want %+v", got, want)
			}
			if got := resourcesOf(pod, &pod.Spec.Containers[0], 4*gib).OOMScoreAdj; got != tt.score {
				t.Errorf("score %d; want %d", got, tt.score)
			}
		})
	}
}

// TestContainerBounds checks that a container without a limit of its own has its pod's, for those who size themselves by it;
// and a sidecar is not taken before the container that it serves.
func TestContainerBounds(t *testing.T) {
	always := corev1.ContainerRestartPolicyAlways
	limits := need("", "", "200m", "40Mi")
	pod := &corev1.Pod{Spec: corev1.PodSpec{Resources: &limits,
		InitContainers: []corev1.Container{{Name: "side", RestartPolicy: &always}},
		Containers:     []corev1.Container{{Name: "a"}, {Name: "b", Resources: need("", "", "50m", "8Mi")}}}}
	if got := resourcesOf(pod, &pod.Spec.Containers[0], gib); got.MemoryLimit != 40<<20 || got.CPUQuota != 20_000 {
		t.Errorf("without a limit: %+v", got)
	}
	if got := resourcesOf(pod, &pod.Spec.Containers[1], gib); got.MemoryLimit != 8<<20 || got.CPUQuota != 5_000 || got.CPUShares != 51 {
		t.Errorf("with a limit: %+v", got)
	}
	pod.Spec.Resources = nil
	pod.Spec.Containers = []corev1.Container{{Name: "a", Resources: need("", "512Mi", "", "")}}
	own, side := oomScore(pod, &pod.Spec.Containers[0], gib), oomScore(pod, &pod.Spec.InitContainers[0], gib)
	if own != 500 || side != 500 {
		t.Errorf("scores %d and, of the sidecar, %d; want 500 twice", own, side)
	}
	pod.Spec.PriorityClassName = "system-node-critical"
	if got := oomScore(pod, &pod.Spec.Containers[0], gib); got != -997 {
		t.Errorf("score of a critical pod: %d", got)
	}
}
