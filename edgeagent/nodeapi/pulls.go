package nodeapi

import (
	"net/http"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/internal/kube"
)

// maxPulls bounds the answer of pulls; there are slots for fewer.
const maxPulls = 32

// pulls answers which images are on their way here, the oldest first, how far each is, and which pods wait for it.
func (s *Server) pulls(w http.ResponseWriter, r *http.Request) {
	running, err := s.cfg.Pulls(r.Context())
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	pods := s.cfg.Pods()
	list := []kube.ImagePull{}
	for _, p := range running[:min(len(running), maxPulls)] {
		pull := kube.ImagePull{Image: p.Image, Pods: []string{}, Since: p.Since, Bytes: p.Bytes, TotalBytes: p.TotalBytes}
		for _, pod := range pods {
			if waitsFor(pod, p.Image) {
				pull.Pods = append(pull.Pods, pod.Namespace+"/"+pod.Name)
			}
		}
		slices.Sort(pull.Pods)
		list = append(list, pull)
	}
	writeJSON(w, list)
}

// waitsFor reports whether a pod has a container that needs an image, as its own or as a volume, and is not started yet.
func waitsFor(pod *corev1.Pod, image string) bool {
	if pod.DeletionTimestamp != nil || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
		return false
	}
	states := map[string]corev1.ContainerState{}
	for _, c := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses, pod.Status.EphemeralContainerStatuses) {
		states[c.Name] = c.State
	}
	needs := func(c *corev1.Container) bool {
		return c.Image == image || slices.ContainsFunc(kube.ImageVolumes(pod, c), func(v *corev1.Volume) bool { return v.Image.Reference == image })
	}
	waits := func(c corev1.Container) bool {
		s := states[c.Name]
		return needs(&c) && s.Running == nil && s.Terminated == nil && (s.Waiting == nil || s.Waiting.Reason != "CrashLoopBackOff")
	}
	return slices.ContainsFunc(slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers), waits) ||
		slices.ContainsFunc(pod.Spec.EphemeralContainers, func(c corev1.EphemeralContainer) bool { return waits(corev1.Container(c.EphemeralContainerCommon)) })
}
