package volume

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/edgeagent/localvolume"
)

// Plugin makes one kind of volume. Its methods may be called at any time, for several pods at once.
//
// Two more methods are optional, see located and composed.
type Plugin interface {
	// Supports reports whether a volume is of the plug-in's kind.
	Supports(v *corev1.Volume) bool
	// Mount makes a volume, or renews what is out of date in it. It is idempotent, also after a crash in the middle.
	Mount(ctx context.Context, r Request) error
	// Unmount undoes Mount, however much of it there is; r has no Source. Directories need not be removed.
	Unmount(ctx context.Context, r Request) error
	// ReadOnly reports whether containers must not write to a volume, even where their mount allows it.
	ReadOnly(v *corev1.Volume) bool
}

// located is a Plugin whose volumes are not at their Request's Dir.
type located interface {
	// Locate returns where a volume is on the node. A container is about to be started with it; r has no Source.
	Locate(r Request) (string, error)
}

// composed is a Plugin whose volumes are made of API objects.
type composed interface {
	// Objects returns those that a volume is made of, nil for each that is missing.
	Objects(r Request) []any
}

// Request is one volume of one pod.
type Request struct {
	Pod    *corev1.Pod
	Volume *corev1.Volume
	Dir    string // where the volume is, on a disk of the node; the plug-in makes it
	Source Source
	Local  *localvolume.Store // the volumes of the built-in provisioner
	Images Images             // nil: none, as where volumes are only unmounted to be mounted again
	// Allocatable is what the node has for pods: it bounds what is in memory, and stands in for limits that are not set.
	Allocatable corev1.ResourceList
}

// kind is a Plugin with the name of its field in a volume.
type kind struct {
	name string
	Plugin
}

// kinds are the volumes that a node has. A new kind is one entry here; its test is one entry in TestPlugins.
var kinds = []kind{
	{"emptyDir", emptyDir{}},
	{"hostPath", hostPath{}},
	{"configMap", configMap{}},
	{"secret", secret{}},
	{"downwardAPI", downwardAPI{}},
	{"projected", projected{}},
	{"persistentVolumeClaim", claim{}},
	{"ephemeral", claim{ephemeral: true}},
	{"image", image{}},
}

// pluginFor returns the plug-in of a volume, or an error with the kinds that there are.
func pluginFor(v *corev1.Volume) (Plugin, error) {
	for _, k := range kinds {
		if k.Supports(v) {
			return k.Plugin, nil
		}
	}
	var names []string
	for _, k := range kinds {
		names = append(names, k.name)
	}
	last := len(names) - 1
	return nil, fmt.Errorf("this kind of volume is not supported; a node has %s and %s", strings.Join(names[:last], ", "), names[last])
}

// Objects returns the objects that a pod's volumes are made of, nil for missing ones, the pod first. Where src shares objects
// that have not changed, comparing the pointers shows whether Sync has anything to do.
func Objects(pod *corev1.Pod, src Source) []any {
	out := []any{pod}
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if p, err := pluginFor(v); err == nil {
			if c, ok := p.(composed); ok {
				out = append(out, c.Objects(Request{Pod: pod, Volume: v, Source: src})...)
			}
		}
	}
	return out
}
