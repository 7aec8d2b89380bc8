package kube

import corev1 "k8s.io/api/core/v1"

// Metered reports whether a node's link is paid by the byte.
func Metered(n *corev1.Node) bool { return n.Labels[MeteredLabel] == "true" }
