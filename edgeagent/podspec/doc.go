// Package podspec turns a pod into what a container runtime takes: environment, mounts, security, resources, names, resolver.
//
//	Pod, desired.Set ─┐
//	Node ─────────────┼─► Sandbox, Container ─► cruntime.SandboxSpec, cruntime.ContainerSpec
//	Place, Volumes ───┘
//
// Its functions decide and touch nothing: what lies on the node comes in as values, or through Volumes. Each refusal carries the
// text that the user reads in the container's status.
package podspec

import (
	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/edgeagent/cruntime"
)

// Node is what a pod finds on its node.
type Node struct {
	Name        string
	IPs         []string            // the main one first
	Allocatable corev1.ResourceList // stands in for limits that are not set
	Memory      int64               // of the whole machine, in bytes
	PodPids     int64               // processes and threads that a pod may have; 0: no limit
	Host        cruntime.Host
	DNS         DNS
	// Hosts and ResolvConf are the machine's own files; empty where it has none.
	Hosts, ResolvConf string
}

// Place is where one pod is on its node.
type Place struct {
	SandboxID string
	Netns     string   // path; "": the node's own network
	IPs       []string // of the pod
}

// Volumes are the pod's volumes, as they are on the node.
type Volumes interface {
	// MountSource returns the path on the node that a container's mount leads to.
	MountSource(pod *corev1.Pod, m corev1.VolumeMount) (string, error)
	// ReadOnly reports whether containers must not write to a volume, even where their mount allows it.
	ReadOnly(pod *corev1.Pod, volume string) bool
	// ReadFile reads a file of at most limit bytes below root, which MountSource has returned. Containers have written it.
	ReadFile(root, path string, limit int) ([]byte, error)
}
