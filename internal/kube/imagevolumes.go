package kube

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// ImageVolumes returns those of a pod's volumes that are images and that a container mounts, in the pod's order.
func ImageVolumes(pod *corev1.Pod, c *corev1.Container) (list []*corev1.Volume) {
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if v.Image != nil && slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == v.Name }) {
			list = append(list, v)
		}
	}
	return list
}

// PodImages returns the images that a pod needs from its start on: those of its containers, and those that are volumes.
func PodImages(pod *corev1.Pod) (list []string) {
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		list = append(list, c.Image)
	}
	for i := range pod.Spec.Volumes {
		if v := pod.Spec.Volumes[i].Image; v != nil {
			list = append(list, v.Reference)
		}
	}
	return list
}
