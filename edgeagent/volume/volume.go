// Package volume makes a pod's volumes on its node: emptyDir, hostPath, configMap, secret, downwardAPI and projected.
//
// Everything lives in the pod's own directory:
//
//	PODS/<uid>/.volumes/<name>     one directory a volume; a tmpfs where it holds secrets or is asked to be memory
//	PODS/<uid>/.subpaths/<hash>    what a subPath leads to, bound there so that no container can move it afterwards
//
// Sync is level-triggered: it may be called at any time, makes what is missing and renews what is out of date. Volumes
// made of API objects change in one atomic step, as kubelet's do: the visible names are links through "..data", which
// is replaced by a rename. Remove undoes everything, whatever is left of it.
package volume

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

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
}

// Error is why a volume cannot be mounted, in kubelet's words.
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
type Mounter struct {
	Dir         string
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
		v := &pod.Spec.Volumes[i]
		if err := m.sync(pod, v, src); err != nil {
			errs = append(errs, &Error{Volume: v.Name, Err: err})
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return errors.Join(errs...)
}

func (m *Mounter) sync(pod *corev1.Pod, v *corev1.Volume, src Source) error {
	dir := m.path(string(pod.UID), v.Name)
	switch {
	case v.EmptyDir != nil:
		return emptyDir(dir, v.EmptyDir, m.memorySize(pod, v.EmptyDir), fsGroup(pod))
	case v.HostPath != nil:
		return hostPath(v.HostPath)
	}
	files, memory, err := m.content(pod, v, src)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if memory {
		if err := tmpfs(dir, 0, 0o755, nil); err != nil {
			return err
		}
	}
	return writeAtomic(dir, files, fsGroup(pod))
}

func fsGroup(pod *corev1.Pod) *int64 {
	if pod.Spec.SecurityContext == nil {
		return nil
	}
	return pod.Spec.SecurityContext.FSGroup
}

// memorySize bounds an emptyDir in memory, in bytes: by its own limit, the pod's memory limit and what the node has for
// pods, whichever is the least, as kubelet does.
func (m *Mounter) memorySize(pod *corev1.Pod, v *corev1.EmptyDirVolumeSource) int64 {
	bound := kube.PodBounds(pod).MemoryLimit
	size := int64(0)
	for _, q := range []*resource.Quantity{m.Allocatable.Memory(), &bound, v.SizeLimit} {
		if q != nil && q.Sign() > 0 && (size == 0 || q.Value() < size) {
			size = q.Value()
		}
	}
	return size
}

// emptyDir makes the directory, complete with its mode and group, or leaves the one that is there alone: from then on it
// is the pod's own, and so is a mode that a container has given it.
//
// size bounds it, in bytes, where it is in memory.
func emptyDir(dir string, v *corev1.EmptyDirVolumeSource, size int64, group *int64) error {
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

// tmpfs mounts a file system in memory on dir unless one is there. size is in bytes; 0 leaves it to the kernel.
func tmpfs(dir string, size int64, mode uint32, group *int64) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return err
	}
	if st.Type == unix.TMPFS_MAGIC && isMountPoint(dir) {
		return nil
	}
	opts := fmt.Sprintf("mode=%o", mode)
	if size > 0 {
		opts += fmt.Sprintf(",size=%d", size)
	}
	if group != nil {
		opts += fmt.Sprintf(",gid=%d", *group)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, opts); err != nil {
		return fmt.Errorf("mounting a tmpfs: %w", err)
	}
	return nil
}

func isMountPoint(dir string) bool {
	var a, b unix.Stat_t
	return unix.Stat(dir, &a) == nil && unix.Stat(filepath.Dir(dir), &b) == nil && a.Dev != b.Dev
}

// hostPath checks, or makes, what a hostPath volume names.
func hostPath(v *corev1.HostPathVolumeSource) error {
	kind := corev1.HostPathUnset
	if v.Type != nil {
		kind = *v.Type
	}
	fi, err := os.Stat(v.Path)
	switch kind {
	case corev1.HostPathUnset:
		return nil
	case corev1.HostPathDirectoryOrCreate:
		if errors.Is(err, os.ErrNotExist) {
			return os.MkdirAll(v.Path, 0o755)
		}
	case corev1.HostPathFileOrCreate:
		if errors.Is(err, os.ErrNotExist) {
			f, err := os.OpenFile(v.Path, os.O_CREATE|os.O_WRONLY|unix.O_NONBLOCK, 0o644)
			if err != nil {
				return err
			}
			return f.Close()
		}
	}
	if err != nil {
		return fmt.Errorf("hostPath type check failed: %s: %w", v.Path, err)
	}
	mode, ok := fi.Mode(), false
	switch kind {
	case corev1.HostPathDirectory, corev1.HostPathDirectoryOrCreate:
		ok = mode.IsDir()
	case corev1.HostPathFile, corev1.HostPathFileOrCreate:
		ok = mode.IsRegular()
	case corev1.HostPathSocket:
		ok = mode&os.ModeSocket != 0
	case corev1.HostPathCharDev:
		ok = mode&os.ModeCharDevice != 0
	case corev1.HostPathBlockDev:
		ok = mode&os.ModeDevice != 0 && mode&os.ModeCharDevice == 0
	}
	if !ok {
		return fmt.Errorf("hostPath type check failed: %s is not a %s", v.Path, kind)
	}
	return nil
}

// MountSource returns the path on the node that a container's volume mount leads to; Sync must have succeeded before.
func (m *Mounter) MountSource(pod *corev1.Pod, vm corev1.VolumeMount) (string, error) {
	i := slices.IndexFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == vm.Name })
	if i < 0 {
		return "", fmt.Errorf("the pod has no volume %q", vm.Name)
	}
	v := &pod.Spec.Volumes[i]
	root := m.path(string(pod.UID), v.Name)
	if v.HostPath != nil {
		root = v.HostPath.Path
		if _, err := os.Stat(root); errors.Is(err, os.ErrNotExist) {
			if err := os.MkdirAll(root, 0o755); err != nil {
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

// subPath opens a path inside a volume without ever leaving it, and binds what it found to a place that no container
// can reach.
func (m *Mounter) subPath(podUID string, v *corev1.Volume, root, sub string) (string, error) {
	if filepath.IsAbs(sub) {
		return "", fmt.Errorf("error SubPath `%s` must not be an absolute path", sub)
	}
	if slices.Contains(strings.Split(sub, "/"), "..") {
		return "", fmt.Errorf("unable to provision SubPath `%s`: must not contain '..'", sub)
	}
	r, err := openRoot(root)
	if err != nil {
		return "", fmt.Errorf("subPath %q: %w", sub, err)
	}
	defer r.Close()
	sub = filepath.Clean(sub)
	f, err := openPath(r, sub)
	if errors.Is(err, os.ErrNotExist) { // in a volume made of API objects too: an optional file that is not there yet
		if err = makeLike(r, sub); err == nil {
			f, err = openPath(r, sub)
		}
	}
	if err != nil {
		return "", fmt.Errorf("subPath %q: %w", sub, err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return "", fmt.Errorf("subPath %q: %w", sub, err)
	}
	sum := sha256.Sum256([]byte(v.Name + "/" + sub))
	target := filepath.Join(m.Dir, podUID, subPathsDir, hex.EncodeToString(sum[:8]))
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return "", err
	}
	// A new container gets what is there now: an older binding may hold what a live update has replaced.
	if err := unix.Unmount(target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err == nil {
		_ = os.Remove(target)
	}
	if fi.IsDir() {
		err = os.MkdirAll(target, 0o755)
	} else if f, e := os.OpenFile(target, os.O_CREATE, 0o644); e == nil {
		err = f.Close()
	} else {
		err = e
	}
	if err != nil {
		return "", err
	}
	if err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return "", fmt.Errorf("subPath %q: bind: %w", sub, err)
	}
	return target, nil
}

// openRoot opens a volume's directory as a root, and does not wait where a hostPath is a FIFO.
func openRoot(path string) (*os.Root, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	return os.OpenRoot(fmt.Sprintf("/proc/self/fd/%d/.", fd))
}

// maxLinks bounds the links that one subPath may lead over.
const maxLinks = 40

// openPath opens what is at a path below a root for a bind mount only (O_PATH): a FIFO, a socket or a device there is
// neither waited for nor touched, and the container gets it, as upstream's does. Links are followed as long as they are
// relative and stay below the root.
func openPath(r *os.Root, path string) (*os.File, error) {
	for range maxLinks {
		f, err := r.OpenFile(path, unix.O_PATH, 0)
		if err != nil {
			return nil, err
		}
		fi, err := f.Stat()
		if err == nil && fi.Mode()&os.ModeSymlink == 0 {
			return f, nil
		}
		f.Close()
		if err != nil {
			return nil, err
		}
		target, err := r.Readlink(path)
		if err != nil {
			return nil, err
		}
		if filepath.IsAbs(target) {
			return nil, fmt.Errorf("%s is a link to %s, which leads out of the volume", path, target)
		}
		path = filepath.Dir(path) + "/" + target // not cleaned: what is before a ".." may be a link
	}
	return nil, fmt.Errorf("%s: too many links", path)
}

// makeLike makes a directory with those above it, each with the volume's own mode: whoever may write to the volume may
// write to a subPath of it.
func makeLike(r *os.Root, sub string) error {
	root, err := r.Stat(".")
	if err != nil {
		return err
	}
	for i := range len(sub) + 1 {
		if i < len(sub) && sub[i] != '/' {
			continue
		}
		if err := r.Mkdir(sub[:i], 0o700); errors.Is(err, os.ErrExist) {
			continue
		} else if err != nil {
			return err
		}
		if err := r.Chmod(sub[:i], root.Mode()&(os.ModePerm|os.ModeSetgid)); err != nil {
			return err
		}
	}
	return nil
}

// ReadOnly tells volumes that containers must not write to, whatever their mount says.
func (m *Mounter) ReadOnly(pod *corev1.Pod, volume string) bool {
	for _, v := range pod.Spec.Volumes {
		if v.Name == volume {
			return v.ConfigMap != nil || v.Secret != nil || v.DownwardAPI != nil || v.Projected != nil
		}
	}
	return false
}

// Remove unmounts and deletes all volumes of a pod. hostPaths are left as they are.
func (m *Mounter) Remove(_ context.Context, podUID string) error {
	base := filepath.Join(m.Dir, podUID)
	if err := unmountBelow(base); err != nil {
		return fmt.Errorf("volumes of pod %s: %w", podUID, err)
	}
	for _, d := range []string{volumesDir, subPathsDir} {
		if err := os.RemoveAll(filepath.Join(base, d)); err != nil {
			return fmt.Errorf("volumes of pod %s: %w", podUID, err)
		}
	}
	return nil
}

// unmountBelow unmounts the volumes below a pod's directory, innermost first. It looks at the kernel's own list, so it
// misses nothing that an earlier life of the agent has made.
func unmountBelow(base string) error {
	real, err := filepath.EvalSymlinks(base)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	var points []string
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 5 {
			continue
		}
		p := unescape.Replace(f[4])
		if strings.HasPrefix(p, filepath.Join(real, volumesDir)+"/") || strings.HasPrefix(p, filepath.Join(real, subPathsDir)+"/") {
			points = append(points, p)
		}
	}
	slices.Reverse(points)
	for _, p := range points {
		if err := unix.Unmount(p, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && err != unix.EINVAL && err != unix.ENOENT {
			return fmt.Errorf("unmount %s: %w", p, err)
		}
	}
	return nil
}

// Objects returns the objects that a pod's volumes are made of, nil for missing ones, the pod first. Where src shares objects
// that have not changed, comparing the pointers shows whether Sync has anything to do.
func Objects(pod *corev1.Pod, src Source) []any {
	out := []any{pod}
	add := func(configMap, secret string) {
		if configMap != "" {
			out = append(out, src.ConfigMap(pod.Namespace, configMap))
		}
		if secret != "" {
			out = append(out, src.Secret(pod.Namespace, secret))
		}
	}
	for _, v := range pod.Spec.Volumes {
		switch {
		case v.ConfigMap != nil:
			add(v.ConfigMap.Name, "")
		case v.Secret != nil:
			add("", v.Secret.SecretName)
		case v.Projected != nil:
			for _, p := range v.Projected.Sources {
				switch {
				case p.ConfigMap != nil:
					add(p.ConfigMap.Name, "")
				case p.Secret != nil:
					add("", p.Secret.Name)
				case p.ServiceAccountToken != nil:
					out = append(out, src.Token(string(pod.UID), p.ServiceAccountToken.Audience))
				}
			}
		}
	}
	return out
}
