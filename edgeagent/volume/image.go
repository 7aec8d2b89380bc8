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
)

// Images has images as directories. edgeagent/ctrd has them.
type Images interface {
	// MountImage mounts the root file system of an image that is on the node at a directory, for one volume of a pod; nobody can write there.
	// What a volume was mounted from first stays its content, whatever the reference names by the next time, as after a reboot.
	MountImage(ctx context.Context, podUID, volume, ref, dir string) error
	// DropImage forgets the content of a volume that is not mounted any more; what is not there is no error.
	DropImage(ctx context.Context, podUID, volume string) error
}

// image is the root file system of an image, mounted once for its pod. It is mounted by MountImages, since the image is there only when a
// container that mounts it is about to start: until then that container waits for it, as for its own.
type image struct{}

func (image) Supports(v *corev1.Volume) bool { return v.Image != nil }

func (image) Mount(context.Context, Request) error { return nil }

func (image) Unmount(ctx context.Context, r Request) error {
	if err := unmount(r.Dir); err != nil {
		return err
	}
	return r.dropImage(ctx)
}

func (image) ReadOnly(*corev1.Volume) bool { return true }

// dropImage forgets the content of the volume, where images are at hand.
func (r *Request) dropImage(ctx context.Context) error {
	if r.Images == nil {
		return nil
	}
	return r.Images.DropImage(ctx, string(r.Pod.UID), r.Volume.Name)
}

// MountImages mounts the images that a container mounts as volumes, and that are on the node.
func (m *Mounter) MountImages(ctx context.Context, pod *corev1.Pod, c *corev1.Container) error {
	for _, v := range kube.ImageVolumes(pod, c) {
		dir := m.path(string(pod.UID), v.Name)
		if m.Images == nil {
			return errors.New("this node mounts no images")
		}
		if on, err := mounted(dir); on || err != nil {
			if err != nil {
				return err
			}
			continue
		}
		if err := m.Images.MountImage(ctx, string(pod.UID), v.Name, v.Image.Reference, dir); err != nil {
			return fmt.Errorf("ImageVolumeMountFailed: volume %q: %w", v.Name, err)
		}
	}
	return nil
}

// mounted reports whether something is mounted at a directory. An image of one layer may be a bind mount from the disk that the directory
// itself is on, so only the kernel's list shows it.
func mounted(dir string) (bool, error) {
	real, err := filepath.EvalSymlinks(dir)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	points, err := mountPoints()
	if err != nil {
		return false, err
	}
	return slices.Contains(points, real), nil
}
