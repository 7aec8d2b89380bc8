package install

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"petrel.dev/petrel/internal/durable"
)

// has reports whether the target has the file, without following a last link: in an image that may lead outside.
func (t Target) has(name string) bool {
	_, err := os.Lstat(filepath.Join(t.Root, name))
	return err == nil
}

// path returns where a file of the target is. Links in an image are meant for the machine that runs it; one that leads out of the
// image here is an error, because the file would be made on this machine.
func (t Target) path(name string) (string, error) {
	full := filepath.Join(t.Root, name)
	root, err := filepath.EvalSymlinks(t.Root)
	if err != nil {
		return "", err
	}
	dir := filepath.Dir(full)
	for !exists(dir) && dir != filepath.Dir(dir) {
		dir = filepath.Dir(dir)
	}
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return "", err
	}
	if real != root && !strings.HasPrefix(real, strings.TrimSuffix(root, "/")+"/") {
		return "", fmt.Errorf("%s leads out of %s, to %s", dir, t.Root, real)
	}
	return full, nil
}

// exists is true of a link that leads nowhere too.
func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// put makes the file have the content and mode, and returns whether it had not.
func (t Target) put(name string, data []byte, mode fs.FileMode) (bool, error) {
	full, err := t.path(name)
	if err != nil {
		return false, err
	}
	if fi, err := os.Lstat(full); err == nil && fi.Mode() == mode {
		if old, err := os.ReadFile(full); err == nil && bytes.Equal(old, data) {
			return false, nil
		}
	}
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		return false, err
	}
	return true, durable.WriteFile(full, data, mode)
}

// link makes a symbolic link, and returns whether it was not there.
func (t Target) link(name, to string) (bool, error) {
	full, err := t.path(name)
	if err != nil {
		return false, err
	}
	if old, err := os.Readlink(full); err == nil && old == to {
		return false, nil
	}
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		return false, err
	}
	if err := os.Remove(full); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	if err := os.Symlink(to, full); err != nil {
		return false, err
	}
	return true, durable.SyncDir(filepath.Dir(full))
}

// remove removes a file or link, and returns whether it was there.
func (t Target) remove(name string) (bool, error) {
	full, err := t.path(name)
	if err != nil {
		return false, err
	}
	switch err := os.Remove(full); {
	case err == nil:
		return true, durable.SyncDir(filepath.Dir(full))
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	default:
		return false, err
	}
}

// putBinary makes the target's binary the same as the file from, and returns whether it was not. The old one may be running: the
// new one takes its name, and nothing is written into it.
func (t Target) putBinary(from string) (changed bool, err error) {
	to, err := t.path(binary)
	if err != nil {
		return false, err
	}
	src, err := os.Open(from)
	if err != nil {
		return false, err
	}
	defer src.Close()
	if same, err := sameContent(src, to); err != nil || same {
		return false, err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return false, err
	}
	next := to + ".new"
	dst, err := os.OpenFile(next, os.O_CREATE|os.O_WRONLY|os.O_TRUNC|unix.O_NOFOLLOW, 0o755)
	if err != nil {
		return false, err
	}
	_, err = io.Copy(dst, src)
	err = errors.Join(err, dst.Chmod(0o755), dst.Sync(), dst.Close())
	if err == nil {
		err = durable.Rename(next, to)
	}
	if err != nil {
		return false, errors.Join(err, os.Remove(next))
	}
	return true, nil
}

// sameContent reports whether the file at path is an executable with the content of src, which is read from its start and left
// there. A file that is not there is not.
func sameContent(src *os.File, path string) (bool, error) {
	old, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer old.Close()
	a, err := src.Stat()
	if err != nil {
		return false, err
	}
	b, err := old.Stat()
	if err != nil {
		return false, err
	}
	if os.SameFile(a, b) {
		return true, nil
	}
	if a.Size() != b.Size() || b.Mode().Perm() != 0o755 {
		return false, nil
	}
	equal, err := sameBytes(src, old)
	if err != nil {
		return false, err
	}
	_, err = src.Seek(0, io.SeekStart)
	return equal, err
}

// sameBytes compares in pieces: a board has no memory for the whole binary twice.
func sameBytes(a, b io.Reader) (bool, error) {
	x, y := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		n, errA := io.ReadFull(a, x)
		m, errB := io.ReadFull(b, y)
		if !bytes.Equal(x[:n], y[:m]) {
			return false, nil
		}
		for _, err := range []error{errA, errB} {
			if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				return false, err
			}
		}
		if errA != nil || errB != nil {
			return errA != nil && errB != nil, nil
		}
	}
}
