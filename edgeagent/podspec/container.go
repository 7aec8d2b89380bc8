package podspec

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/edgeagent/cruntime"
	"petrel.dev/petrel/edgeagent/desired"
)

// Hash identifies one definition of a container. Of what may change in a running pod only that counts which needs a new container:
// resources change in place.
func Hash(c corev1.Container) string {
	b, err := json.Marshal(struct{ Name, Image string }{c.Name, c.Image})
	if err != nil {
		panic(err) // these types always encode
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:8])
}

// Sandbox describes what a pod's containers share, and the texts of the files that they share, by name.
func (n Node) Sandbox(pod *corev1.Pod, at Place) (cruntime.SandboxSpec, map[string]string, error) {
	names, err := Names(pod, n.DNS.Domain)
	if err != nil {
		return cruntime.SandboxSpec{}, nil, err
	}
	files := map[string]string{"hosts": hostsFile(pod, n, at, names), "hostname": names.Kernel + "\n", "resolv.conf": resolvConf(pod, n)}
	room := int64(0)
	for _, text := range files {
		room += int64(len(text))
	}
	return cruntime.SandboxSpec{PodUID: string(pod.UID), Namespace: pod.Namespace, Name: pod.Name, Hostname: names.Kernel,
		HostIPC: pod.Spec.HostIPC, HostNet: pod.Spec.HostNetwork, Resources: podResources(pod, n.PodPids), FilesRoom: room}, files, nil
}

// Attempt is one try to run one container of a pod.
type Attempt struct {
	Pod       *corev1.Pod
	Container *corev1.Container
	Number    int
	Target    string       // ID of the container whose processes it shares; "": none in particular
	Set       *desired.Set // what env and envFrom refer to
	Place     Place
	Volumes   Volumes
	LogPath   string
}

// errSELinux refuses a container that asks for labels which nobody would set.
var errSELinux = errors.New("this node has SELinux on, and its runtime sets no labels: leave seLinuxOptions out")

// Container describes an attempt in full, but for the mounts of the pod's own files. skipped are keys of envFrom that are no names
// of variables.
func (n Node) Container(a Attempt) (spec cruntime.ContainerSpec, skipped []string, err error) {
	pod, c := a.Pod, a.Container
	if p := c.SecurityContext; n.Host.SELinux && p != nil && p.SELinuxOptions != nil { // of an ephemeral one: others keep the pod from the node
		return cruntime.ContainerSpec{}, nil, errSELinux
	}
	vars, skipped, err := n.environment(a)
	if err != nil {
		return cruntime.ContainerSpec{}, nil, err
	}
	spec = cruntime.ContainerSpec{
		PodUID: string(pod.UID), Namespace: pod.Namespace, Pod: pod.Name, Name: c.Name, Attempt: a.Number, SandboxID: a.Place.SandboxID, Hash: Hash(*c),
		Image: c.Image, Command: expandAll(c.Command, vars), Args: expandAll(c.Args, vars), Env: sortedEnv(vars), WorkingDir: c.WorkingDir,
		Security: securityOf(pod, c), Resources: resourcesOf(pod, c, n.Memory), Share: ShareOf(pod, c).String(),
		TTY: c.TTY, Stdin: c.Stdin, StdinOnce: c.StdinOnce,
		NetnsPath: a.Place.Netns, HostNet: pod.Spec.HostNetwork, HostPID: pod.Spec.HostPID, HostIPC: pod.Spec.HostIPC,
		SharePID: isTrue(pod.Spec.ShareProcessNamespace) && !pod.Spec.HostPID,
		LogPath:  a.LogPath,
	}
	if !spec.HostPID && !spec.SharePID { // otherwise the target's processes are the node's, or the pod's
		spec.TargetID = a.Target
	}
	if names, err := Names(pod, n.DNS.Domain); err == nil { // otherwise the pod has no sandbox
		spec.Hostname = names.Kernel
	}
	spec.Mounts, err = n.mounts(a, vars)
	return spec, skipped, err
}

// mounts finds what the container's volumeMounts lead to.
func (n Node) mounts(a Attempt, vars map[string]string) (out []cruntime.Mount, err error) {
	for _, m := range a.Container.VolumeMounts {
		if m.SubPathExpr != "" {
			if m.SubPath, err = expandKnown(m.SubPathExpr, vars); err != nil {
				return nil, err
			}
		}
		src, err := a.Volumes.MountSource(a.Pod, m)
		if err != nil {
			return nil, err
		}
		mount := cruntime.Mount{Source: src, Target: m.MountPath, ReadOnly: m.ReadOnly || a.Volumes.ReadOnly(a.Pod, m.Name)}
		if mount.Recursive, err = recursive(m, n.Host); err != nil {
			return nil, err
		}
		if m.MountPropagation != nil {
			switch *m.MountPropagation {
			case corev1.MountPropagationHostToContainer:
				mount.Propagation = "rslave"
			case corev1.MountPropagationBidirectional:
				mount.Propagation = "rshared"
			}
		}
		if !filepath.IsAbs(mount.Target) {
			mount.Target = "/" + mount.Target
		}
		out = append(out, mount)
	}
	return out, nil
}

// recursive reports whether a mount is to be read-only with all that is below it, in kubelet's way.
func recursive(m corev1.VolumeMount, host cruntime.Host) (bool, error) {
	if m.RecursiveReadOnly == nil || *m.RecursiveReadOnly == corev1.RecursiveReadOnlyDisabled {
		return false, nil
	}
	switch {
	case !m.ReadOnly:
		return false, fmt.Errorf("volume %q requested recursive read-only mode, but it is not read-only", m.Name)
	case m.MountPropagation != nil && *m.MountPropagation != corev1.MountPropagationNone:
		return false, fmt.Errorf("volume %q requested recursive read-only mode, but it is not compatible with propagation %q", m.Name, *m.MountPropagation)
	case *m.RecursiveReadOnly == corev1.RecursiveReadOnlyEnabled && !host.RecursiveReadOnly:
		return false, fmt.Errorf("volume %q requested recursive read-only mode, but it is not supported by the runtime (it needs Linux 5.12 and runc 1.1)", m.Name)
	}
	return host.RecursiveReadOnly, nil
}
