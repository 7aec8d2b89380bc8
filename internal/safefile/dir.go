//go:build linux

package safefile

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"

	"golang.org/x/sys/unix"
)

// PrivateDir makes a directory that only its owner can enter, those above it too, or makes one that is there so, with a
// line in the log: what lies below it then needs no modes of its own. A container reaches what is mounted in it by that
// mount, and needs no way there.
func PrivateDir(path string, log *slog.Logger) error {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return err
	}
	fd, err := retry(func() (int, error) { return unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0) })
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	d := os.NewFile(uintptr(fd), path)
	defer d.Close()
	fi, err := d.Stat()
	if err != nil || fi.Mode().Perm()&0o077 == 0 {
		return err
	}
	if fi.Mode()&fs.ModeSticky != 0 {
		return fmt.Errorf("%s is a directory for everybody (mode %s); name one of its own, such as %s/petrel", path, fi.Mode(), path)
	}
	if err := d.Chmod(0o700); err != nil {
		return errors.Join(fmt.Errorf("%s can be entered by every user of this machine, and must not: chmod 700 it", path), err)
	}
	log.Warn("directory was open to other users of this machine, closing it", "dir", path, "mode", fi.Mode().String(), "now", "0700")
	return nil
}
