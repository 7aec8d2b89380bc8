package nodeapi

import (
	"net/http"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	statsv1 "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"petrel.dev/petrel/edgeagent/cgroupstat"
	"petrel.dev/petrel/internal/kube"
)

// readAll samples the machine, each pod and each running container. What is gone meanwhile is left out.
func (s *Server) readAll() samples {
	out := samples{}
	if u, _, err := s.cfg.Usage.Machine(); err == nil {
		out[machineKey] = u
	}
	for _, pod := range s.cfg.Pods() {
		running := runningContainers(pod)
		if len(running) == 0 {
			continue
		}
		for _, c := range append(running, container{}) {
			cgroup := s.cfg.Cgroup(string(pod.UID), c.id)
			if u, err := s.cfg.Usage.Of(cgroup); err == nil {
				out[cgroup] = u
			}
		}
	}
	return out
}

// container is one that runs.
type container struct {
	name, id, image string
	started         metav1.Time
}

// runningContainers returns those of a pod by its status.
func runningContainers(pod *corev1.Pod) (out []container) {
	for _, list := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses, pod.Status.EphemeralContainerStatuses} {
		for _, c := range list {
			_, id, ok := strings.Cut(c.ContainerID, "://")
			if c.State.Running != nil && ok {
				out = append(out, container{c.Name, id, c.Image, c.State.Running.StartedAt})
			}
		}
	}
	return out
}

// summary answers with what the node and its containers use, in kubelet's form.
func (s *Server) summary(w http.ResponseWriter, r *http.Request) {
	m, err := s.sampler.measure(r.Context())
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	_, started, _ := s.cfg.Usage.Machine()
	out := statsv1.Summary{Pods: []statsv1.PodStats{}, Node: statsv1.NodeStats{NodeName: s.cfg.NodeName, StartTime: metav1.NewTime(started)}}
	out.Node.CPU, out.Node.Memory = m.cpu(machineKey), m.memory(machineKey)
	asked := r.URL.Query()[kube.StatsPodParameter]
	for _, pod := range s.cfg.Pods() {
		if len(asked) > 0 && !slices.Contains(asked, string(pod.UID)) {
			continue
		}
		stats := statsv1.PodStats{PodRef: statsv1.PodReference{Name: pod.Name, Namespace: pod.Namespace, UID: string(pod.UID)}, Containers: []statsv1.ContainerStats{}}
		if pod.Status.StartTime != nil {
			stats.StartTime = *pod.Status.StartTime
		}
		for _, c := range runningContainers(pod) {
			key := s.cfg.Cgroup(string(pod.UID), c.id)
			if _, ok := m.now[key]; ok {
				stats.Containers = append(stats.Containers, statsv1.ContainerStats{Name: c.name, StartTime: c.started, CPU: m.cpu(key), Memory: m.memory(key)})
			}
		}
		if len(stats.Containers) == 0 {
			continue
		}
		whole := s.cfg.Cgroup(string(pod.UID), "")
		stats.CPU, stats.Memory = m.cpu(whole), m.memory(whole)
		out.Pods = append(out.Pods, stats)
	}
	w.Header().Set(kube.StatsWindowHeader, m.window.String())
	writeJSON(w, out)
}

// cpu returns what a cgroup uses of the processors; nil where the kernel does not count it.
func (m measured) cpu(key string) *statsv1.CPUStats {
	u, ok := m.now[key]
	if !ok || !u.HasCPU {
		return nil
	}
	total := uint64(u.CPU)
	out := &statsv1.CPUStats{Time: metav1.NewTime(u.At), UsageCoreNanoSeconds: &total}
	if cores, ok := m.cores[key]; ok {
		rate := uint64(cores * 1e9)
		out.UsageNanoCores = &rate
	}
	return out
}

// memory returns what a cgroup uses of the memory; nil where the kernel does not count it.
func (m measured) memory(key string) *statsv1.MemoryStats {
	u, ok := m.now[key]
	if !ok || !u.HasMemory {
		return nil
	}
	return memoryOf(u)
}

func memoryOf(u cgroupstat.Usage) *statsv1.MemoryStats {
	out := &statsv1.MemoryStats{Time: metav1.NewTime(u.At), UsageBytes: &u.Memory, WorkingSetBytes: &u.WorkingSet, RSSBytes: &u.RSS,
		PageFaults: &u.PageFaults, MajorPageFaults: &u.MajorFaults}
	if u.Available > 0 {
		out.AvailableBytes = &u.Available
	}
	return out
}
