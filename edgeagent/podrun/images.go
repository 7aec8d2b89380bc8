package podrun

import (
	"encoding/json"
	"os"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/safefile"
)

// Images are those that the pods on this node name, also of pods that the set does not name at the moment.
func (m *Manager) Images() []string {
	var out []string
	for _, h := range m.all() {
		if s := h.shown.Load(); s.pod != nil && !s.removed {
			out = append(out, ImagesOf(s.pod)...)
		}
	}
	return out
}

// ImagesOf are the images that a pod names, for its containers and as volumes.
func ImagesOf(pod *corev1.Pod) []string {
	out := kube.PodImages(pod)
	for i := range pod.Spec.EphemeralContainers {
		out = append(out, pod.Spec.EphemeralContainers[i].Image)
	}
	return out
}

// SavedImages are the images of the pods that an agent keeps in dir, whether it runs or not.
func SavedImages(dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var out []string
	for _, e := range entries {
		var p corev1.Pod
		if b, err := safefile.ReadIn(dir, filepath.Join(e.Name(), podFile), maxOwnFile); err == nil && json.Unmarshal(b, &p) == nil {
			out = append(out, ImagesOf(&p)...)
		}
	}
	return out
}
