package kube

import corev1 "k8s.io/api/core/v1"

// ImageFetch is what a hub asks a node to have before a pod comes: the body of a stream of kind fetch.
type ImageFetch struct {
	// Pod has the namespace, and of the containers names, images and pull policies; its imagePullSecrets are among Secrets.
	Pod     corev1.Pod
	Secrets []corev1.Secret
}

// MaxImageFetch bounds it, in bytes: a few pull secrets, and the images of a pod.
const MaxImageFetch = 4 << 20
