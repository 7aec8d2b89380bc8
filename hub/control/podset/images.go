package podset

import (
	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
)

// Images has images on a node before the pod that needs them. hub/prefetch is one; nil: all are taken for present.
type Images interface {
	// Ready reports whether a pod of owner with a template, which is identified by a text, may replace the one on the node. When it may not
	// yet, wake is called once it may. It never blocks.
	Ready(owner kube.Object, node *corev1.Node, template string, spec *corev1.PodSpec, wake func()) bool
}

// Replaceable returns what reports whether the pod on a node may be deleted for one with another template, as far as images go.
func Replaceable(images Images, r control.Reader, owner kube.Object, template string, spec *corev1.PodSpec, wake func()) func(node string) bool {
	return func(name string) bool {
		if images == nil {
			return true
		}
		n, ok := control.Get[*corev1.Node](r, kube.Node, "", name)
		return !ok || images.Ready(owner, n, template, spec, wake)
	}
}
