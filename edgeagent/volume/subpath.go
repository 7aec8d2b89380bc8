package volume

import (
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
)

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
	if errors.Is(err, os.ErrNotExist) && v.Image == nil { // in a volume made of API objects too: an optional file that is not there yet
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

// makeLike makes a directory with those above it, each with the volume's own mode: those who may write to the volume may
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
