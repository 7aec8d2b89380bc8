package kube

import corev1 "k8s.io/api/core/v1"

// ContainerNamed returns the container, init container or ephemeral container of a name, or nil. It points into the pod.
func ContainerNamed(pod *corev1.Pod, name string) *corev1.Container {
	for _, list := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range list {
			if list[i].Name == name {
				return &list[i]
			}
		}
	}
	if e := EphemeralContainerNamed(pod, name); e != nil {
		return (*corev1.Container)(&e.EphemeralContainerCommon)
	}
	return nil
}

// EphemeralContainerNamed returns the ephemeral container of a name, or nil. It points into the pod.
func EphemeralContainerNamed(pod *corev1.Pod, name string) *corev1.EphemeralContainer {
	for i := range pod.Spec.EphemeralContainers {
		if e := &pod.Spec.EphemeralContainers[i]; e.Name == name {
			return e
		}
	}
	return nil
}

// ContainerStatusNamed returns the status of a container, init container or ephemeral container, or nil. It points into the pod's
// status.
func ContainerStatusNamed(st *corev1.PodStatus, name string) *corev1.ContainerStatus {
	for _, list := range [][]corev1.ContainerStatus{st.ContainerStatuses, st.InitContainerStatuses, st.EphemeralContainerStatuses} {
		for i := range list {
			if list[i].Name == name {
				return &list[i]
			}
		}
	}
	return nil
}
