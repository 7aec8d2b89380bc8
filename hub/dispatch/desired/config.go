package desired

import (
	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/internal/kube"
)

// Reader finds the objects that pods refer to: control.Reader is one. It answers from memory, and is no older than the last
// Change.
type Reader interface {
	Get(gvk kube.GVK, namespace, name string) (kube.Object, bool)
}

// Config is what Sets are made of.
type Config struct {
	// Sources is the table of what is synced; one of them is of Pods.
	Sources []Source
	Reader  Reader
	// Waits reports whether something that a pod mounts is still being made beside the loop, so that its node would only
	// fail to start it. Nil: no pod waits.
	Waits func(node string, p *corev1.Pod) bool
}
