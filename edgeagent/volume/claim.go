package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/localpath"
)

// claim is the volume of a PersistentVolumeClaim, which outlives the pod: at the pod's place there is only a link to it, so that
// nothing that removes a pod's directory reaches the data.
type claim struct {
	// ephemeral says that the claim is the pod's own, made for it: it goes with the pod.
	ephemeral bool
}

func (p claim) Supports(v *corev1.Volume) bool {
	if p.ephemeral {
		return v.Ephemeral != nil
	}
	return v.PersistentVolumeClaim != nil
}

func (p claim) Mount(_ context.Context, r Request) error {
	_, err := os.Readlink(r.Dir)
	mounted := err == nil
	c := p.get(r)
	switch {
	case c == nil && mounted:
		return nil // as with other objects that are gone: the pod keeps what it has
	case c == nil:
		return fmt.Errorf("persistentvolumeclaim %q not found", p.name(r))
	case p.ephemeral:
		if err := kube.CheckOwnClaim(r.Pod, &c.Claim); err != nil {
			return err
		}
	}
	if c.Volume == nil {
		return errors.New("PVC is not bound")
	}
	dir, owned, err := place(r, c.Volume)
	if err != nil {
		return err
	}
	if have, err := os.Readlink(r.Dir); err == nil && have == dir {
		return nil
	}
	if owned { // once for each pod, before its first container
		if err := setGroup(dir, r.Pod); err != nil {
			return err
		}
	}
	next := r.Dir + ".new" // no volume is called so: names have no dots
	if err := os.Remove(next); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.Symlink(dir, next); err != nil {
		return err
	}
	return os.Rename(next, r.Dir)
}

// Unmount leaves the data and the link: Remove removes the link with the pod's directory.
func (claim) Unmount(context.Context, Request) error { return nil }

func (claim) ReadOnly(v *corev1.Volume) bool {
	return v.PersistentVolumeClaim != nil && v.PersistentVolumeClaim.ReadOnly
}

// Locate returns where the link leads.
func (claim) Locate(r Request) (string, error) { return os.Readlink(r.Dir) }

func (p claim) Objects(r Request) []any { return []any{p.get(r)} }

func (claim) name(r Request) string {
	name, _ := kube.VolumeClaim(r.Pod, r.Volume)
	return name
}

func (p claim) get(r Request) *kube.NodeClaim { return r.Source.Claim(r.Pod.Namespace, p.name(r)) }

// place returns the directory of a volume on this node. owned: it belongs to the pods that mount it, and gets their group.
func place(r Request, v *corev1.PersistentVolume) (dir string, owned bool, err error) {
	if err := mountable(r, v); err != nil {
		return "", false, err
	}
	switch s := &v.Spec.PersistentVolumeSource; {
	case s.HostPath != nil:
		hp := &corev1.Volume{VolumeSource: corev1.VolumeSource{HostPath: s.HostPath}}
		if err := checkHostPath(s.HostPath); err != nil {
			return "", false, err
		}
		dir, err := hostPath{}.Locate(Request{Volume: hp})
		return dir, false, err
	case s.Local != nil:
		fi, err := os.Stat(s.Local.Path)
		if err != nil {
			return "", false, fmt.Errorf("local volume: %w", err)
		}
		if !fi.IsDir() {
			return "", false, fmt.Errorf("local volume %s is no directory; this node mounts no block devices", s.Local.Path)
		}
		return s.Local.Path, true, nil
	default:
		dir, err := r.Local.Make(s.CSI.VolumeHandle)
		return dir, true, err
	}
}

// mountable refuses volumes that this node cannot mount as they ask.
func mountable(r Request, v *corev1.PersistentVolume) error {
	s := &v.Spec.PersistentVolumeSource
	switch {
	case s.HostPath == nil && s.Local == nil && (s.CSI == nil || s.CSI.Driver != localpath.Driver):
		return fmt.Errorf("this kind of persistent volume (%s) is not supported; a node has hostPath, local and the CSI driver %s", v.Name, localpath.Driver)
	case v.Spec.VolumeMode != nil && *v.Spec.VolumeMode == corev1.PersistentVolumeBlock:
		return fmt.Errorf("volume %s has volumeMode Block, which is not supported; use Filesystem", v.Name)
	case len(v.Spec.MountOptions) > 0:
		return fmt.Errorf("volume %s has mount options, which are not supported for a directory", v.Name)
	case s.CSI != nil && s.CSI.ReadOnly:
		return fmt.Errorf("volume %s is readOnly, which is not supported; set readOnly where the pod names its claim", v.Name)
	}
	node := r.Source.ThisNode()
	if node == nil {
		return errors.New("the hub has not sent this node's labels yet")
	}
	if on := localpath.Node(v); s.CSI != nil && on != node.Name {
		return fmt.Errorf("volume %s is on node %s", v.Name, on)
	}
	if !kube.VolumeReaches(v, node) {
		return fmt.Errorf("no matching NodeSelectorTerms: volume %s is not for this node", v.Name)
	}
	return nil
}

// setGroup gives all of a volume to the pod's fsGroup, as kubelet does: the group may read and write, and new files are the group's.
// By OnRootMismatch nothing is done when the volume's own directory is so already.
func setGroup(dir string, pod *corev1.Pod) error {
	group := fsGroup(pod)
	if group == nil {
		return nil
	}
	root, err := openRoot(dir)
	if err != nil {
		return fmt.Errorf("fsGroup: %w", err)
	}
	defer root.Close()
	if policy := pod.Spec.SecurityContext.FSGroupChangePolicy; policy != nil && *policy == corev1.FSGroupChangeOnRootMismatch {
		if ok, err := hasGroup(root, int(*group)); ok || err != nil {
			return err
		}
	}
	// The volume's own directory comes last: with OnRootMismatch it proves that the rest is done.
	return errors.Join(ownBelow(root, ".", int(*group)), ownOne(root, ".", int(*group)))
}

// UsedBy reports whether a pod of this node has a directory as a volume, whether its containers run or not.
func (m *Mounter) UsedBy(dir string) bool {
	links, err := filepath.Glob(filepath.Join(m.Dir, "*", volumesDir, "*"))
	return err != nil || slices.ContainsFunc(links, func(link string) bool {
		target, err := os.Readlink(link)
		return err == nil && target == dir
	})
}
