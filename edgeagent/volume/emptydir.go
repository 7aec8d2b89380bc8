package volume

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"petrel.dev/petrel/internal/kube"
)

// emptyDir is a directory that lives as long as its pod, on the disk or in memory.
type emptyDir struct{}

func (emptyDir) Supports(v *corev1.Volume) bool { return v.EmptyDir != nil }

func (emptyDir) Mount(_ context.Context, r Request) error {
	return makeEmptyDir(r.Dir, r.Volume.EmptyDir, memorySize(r), fsGroup(r.Pod))
}

func (emptyDir) Unmount(_ context.Context, r Request) error { return unmount(r.Dir) }

func (emptyDir) ReadOnly(*corev1.Volume) bool { return false }

// memorySize bounds an emptyDir in memory, in bytes: by its own limit, the pod's memory limit and what the node has for
// pods, whichever is the least, as kubelet does.
func memorySize(r Request) int64 {
	bound := kube.PodBounds(r.Pod).MemoryLimit
	size := int64(0)
	for _, q := range []*resource.Quantity{r.Allocatable.Memory(), &bound, r.Volume.EmptyDir.SizeLimit} {
		if q != nil && q.Sign() > 0 && (size == 0 || q.Value() < size) {
			size = q.Value()
		}
	}
	return size
}

// makeEmptyDir makes the directory, complete with its mode and group, or leaves the one that is there alone: from then on it
// is the pod's own, and so is a mode that a container has given it.
//
// size bounds it, in bytes, where it is in memory.
func makeEmptyDir(dir string, v *corev1.EmptyDirVolumeSource, size int64, group *int64) error {
	mode := uint32(0o777)
	if group != nil {
		mode |= unix.S_ISGID
	}
	switch v.Medium {
	case corev1.StorageMediumDefault:
	case corev1.StorageMediumMemory:
		if err := os.MkdirAll(dir, 0o777); err != nil {
			return err
		}
		return tmpfs(dir, size, mode, group)
	default:
		return fmt.Errorf("emptyDir medium %q is not supported on this node; use \"\" or Memory", v.Medium)
	}
	if _, err := os.Lstat(dir); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	next := dir + ".new" // no volume is called so: names have no dots
	if err := errors.Join(os.RemoveAll(next), os.Mkdir(next, 0o700)); err != nil {
		return err
	}
	if group != nil {
		if err := os.Chown(next, -1, int(*group)); err != nil {
			return err
		}
	}
	if err := unix.Chmod(next, mode); err != nil { // not subject to the umask
		return err
	}
	return os.Rename(next, dir)
}
