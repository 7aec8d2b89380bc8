// Package volume makes a pod's volumes on its node. Each kind is a Plugin, in the table of plugin.go; what is the same for all of
// them, as subPaths and their safety, is here.
//
// Everything lives in the pod's own directory:
//
//	PODS/<uid>/.volumes/<name>     one directory a volume; a tmpfs where it holds secrets or is asked to be memory; a link to the
//	                               volume of a claim, which is elsewhere and stays when the pod goes
//	PODS/<uid>/.subpaths/<hash>    what a subPath leads to, bound there so that no container can move it afterwards
//
// Sync is level-triggered: it may be called at any time, makes what is missing and renews what is out of date. Volumes
// made of API objects change in one atomic step, as kubelet's do: the visible names are links through "..data", which
// is replaced by a rename. Remove undoes everything, whatever is left of it.
package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/edgeagent/localvolume"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/safefile"
	"petrel.dev/petrel/internal/wire"
)

// Source is where the API objects that volumes are made of come from. Each returns nil for what is not there; results
// are read-only.
type Source interface {
	ConfigMap(namespace, name string) *corev1.ConfigMap
	Secret(namespace, name string) *corev1.Secret
	Token(podUID, audience string) *wire.Token
	Claim(namespace, name string) *kube.NodeClaim
	// ThisNode returns the node's own object.
	ThisNode() *corev1.Node
}

// Error is why a volume cannot be mounted, with kubelet's text.
type Error struct {
	Volume string
	Err    error
}

func (e *Error) Error() string {
	return fmt.Sprintf("MountVolume.SetUp failed for volume %q : %v", e.Volume, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

// Mounter makes volumes below Dir, the directory of all pods. Allocatable stands in for limits that a container does not
// set when the downward API is asked for them, and bounds what is in memory.
//
// Local has the volumes of the built-in provisioner. It may be nil where no pod has one. Images has images that are volumes; nil: Remove keeps
// what they were mounted from.
type Mounter struct {
	Dir         string
	Local       *localvolume.Store
	Images      Images
	Allocatable corev1.ResourceList
}

const (
	volumesDir  = ".volumes"
	subPathsDir = ".subpaths"
)

func (m *Mounter) path(podUID, volume string) string {
	return filepath.Join(m.Dir, podUID, volumesDir, volume)
}

// Path returns where a volume of a pod is on the node; hostPaths are elsewhere.
func (m *Mounter) Path(podUID, volume string) string { return m.path(podUID, volume) }

// Sync makes and renews all volumes of a pod. It goes on after a failure and returns all of them joined, each an *Error.
func (m *Mounter) Sync(ctx context.Context, pod *corev1.Pod, src Source) error {
	if err := os.MkdirAll(filepath.Join(m.Dir, string(pod.UID), volumesDir), 0o755); err != nil {
		return fmt.Errorf("volume: %w", err)
	}
	var errs []error
	for i := range pod.Spec.Volumes {
		r := m.request(pod, i)
		r.Source = src
		p, err := pluginFor(r.Volume)
		if err == nil {
			err = p.Mount(ctx, r)
		}
		if err != nil {
			errs = append(errs, &Error{Volume: r.Volume.Name, Err: err})
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return errors.Join(errs...)
}

// request is the pod's i-th volume.
func (m *Mounter) request(pod *corev1.Pod, i int) Request {
	v := &pod.Spec.Volumes[i]
	return Request{Pod: pod, Volume: v, Dir: m.path(string(pod.UID), v.Name), Local: m.Local, Images: m.Images, Allocatable: m.Allocatable}
}

// fsGroup returns the group that a pod's volumes belong to; nil: none.
func fsGroup(pod *corev1.Pod) *int64 {
	if pod.Spec.SecurityContext == nil {
		return nil
	}
	return pod.Spec.SecurityContext.FSGroup
}

// MountSource returns the path on the node that a container's volume mount leads to; Sync must have succeeded before.
func (m *Mounter) MountSource(pod *corev1.Pod, vm corev1.VolumeMount) (string, error) {
	i := slices.IndexFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == vm.Name })
	if i < 0 {
		return "", fmt.Errorf("the pod has no volume %q", vm.Name)
	}
	v := &pod.Spec.Volumes[i]
	root := m.path(string(pod.UID), v.Name)
	if p, err := pluginFor(v); err == nil {
		if l, ok := p.(located); ok {
			if root, err = l.Locate(m.request(pod, i)); err != nil {
				return "", err
			}
		}
	}
	if vm.SubPath == "" {
		return root, nil
	}
	return m.subPath(string(pod.UID), v, root, vm.SubPath)
}

// ReadFile reads a file below root, which MountSource has returned, without leaving it. What holds more than limit bytes is an
// error.
func (*Mounter) ReadFile(root, path string, limit int) ([]byte, error) {
	return safefile.ReadInRoot(root, path, limit)
}

// ReadOnly reports whether containers must not write to a volume, even where their mount allows it.
func (*Mounter) ReadOnly(pod *corev1.Pod, volume string) bool {
	for i := range pod.Spec.Volumes {
		if v := &pod.Spec.Volumes[i]; v.Name == volume {
			p, err := pluginFor(v)
			return err == nil && p.ReadOnly(v)
		}
	}
	return false
}

// Remove unmounts and deletes all volumes of a pod; what is not its own, as a hostPath, is left as it is. Of a pod of which only
// the UID is known it removes what is found in the pod's directory.
func (m *Mounter) Remove(ctx context.Context, pod *corev1.Pod) error {
	base := filepath.Join(m.Dir, string(pod.UID))
	if err := m.unmountAll(ctx, pod, base); err != nil {
		return fmt.Errorf("volumes of pod %s: %w", pod.UID, err)
	}
	for _, d := range []string{volumesDir, subPathsDir} {
		if err := os.RemoveAll(filepath.Join(base, d)); err != nil {
			return fmt.Errorf("volumes of pod %s: %w", pod.UID, err)
		}
	}
	return nil
}

// unmountAll takes subPaths away, then volumes by their plug-ins, then whatever is still mounted.
func (m *Mounter) unmountAll(ctx context.Context, pod *corev1.Pod, base string) error {
	if err := unmountBelow(base, subPathsDir); err != nil {
		return err
	}
	for i := range pod.Spec.Volumes {
		r := m.request(pod, i)
		if p, err := pluginFor(r.Volume); err == nil {
			if err := p.Unmount(ctx, r); err != nil {
				return err
			}
		}
	}
	if err := unmountBelow(base, volumesDir); err != nil {
		return err
	}
	if len(pod.Spec.Containers) > 0 {
		return nil
	}
	entries, err := os.ReadDir(filepath.Join(base, volumesDir)) // of this pod only the UID is known: any of them may be an image
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		r := Request{Pod: pod, Volume: &corev1.Volume{Name: e.Name()}, Images: m.Images}
		if err := r.dropImage(ctx); err != nil {
			return err
		}
	}
	return nil
}
