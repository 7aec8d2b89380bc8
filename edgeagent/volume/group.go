package volume

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// What the group of a volume may do, as kubelet sets it.
const (
	groupFile = 0o660
	groupDir  = 0o770
)

// maxDepth bounds how far down a volume is walked: a pod that moves directories meanwhile must not make that endless.
const maxDepth = 512

// hasGroup reports whether the volume's own directory has the group and its rights.
func hasGroup(root *os.Root, group int) (bool, error) {
	fi, err := root.Lstat(".")
	if err != nil {
		return false, err
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	return ok && int(st.Gid) == group && fi.Mode()&os.ModeSetgid != 0 && fi.Mode().Perm()&groupDir == groupDir, nil
}

// ownBelow gives all that is below a directory to the group. Other pods may change the volume meanwhile: what has gone is skipped, and
// nothing outside of the root is reached, wherever links lead.
func ownBelow(root *os.Root, dir string, group int) error {
	if strings.Count(dir, "/") > maxDepth {
		return fmt.Errorf("fsGroup: directories are nested deeper than %d", maxDepth)
	}
	d, err := root.OpenFile(dir, unix.O_DIRECTORY, 0) // what has become a pipe meanwhile is not waited for
	if err != nil {
		return ignoreGone(err)
	}
	defer d.Close()
	var errs []error
	for {
		entries, err := d.ReadDir(256)
		for _, e := range entries {
			name := path.Join(dir, e.Name())
			if e.IsDir() {
				errs = append(errs, ownBelow(root, name, group))
			}
			errs = append(errs, ownOne(root, name, group))
			if err := errors.Join(errs...); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return ignoreGone(err)
		}
	}
}

// ownOne gives one file or directory to the group. Of a link only the link itself changes its owner.
func ownOne(root *os.Root, name string, group int) error {
	fi, err := root.Lstat(name)
	if err != nil {
		return ignoreGone(err)
	}
	if err := root.Lchown(name, -1, group); err != nil {
		return ignoreGone(err)
	}
	mode := fi.Mode() & (os.ModePerm | os.ModeSetuid | os.ModeSetgid | os.ModeSticky)
	switch {
	case fi.IsDir():
		mode |= groupDir | os.ModeSetgid
	case fi.Mode().IsRegular():
		mode |= groupFile
	default:
		return nil
	}
	return ignoreGone(root.Chmod(name, mode))
}

func ignoreGone(err error) error {
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	return err
}
