//go:build linux

// Package safefile opens files that others can shape: what a container, an image, a user or another program may have
// written, replaced or turned into something else.
//
//	what a plain os.ReadFile does              what this package does
//	waits at a FIFO until someone writes       never opens anything but regular files
//	runs a driver's open at a device           the same
//	follows links, in the reader's own root    follows none (Open, Read), or resolves them below root (the InRoot forms)
//	reads 1 TiB of a sparse file               reads at most max bytes
//
// The type is checked on a descriptor that cannot read (O_PATH), and that very inode is then opened, so nothing can be
// exchanged between the check and the open. No form returns a file outside the directory that it was given.
//
// What it cannot help with: a file system that itself does not answer (a dead NFS server, a FUSE program). Code that holds
// something that others wait for needs a deadline as well.
package safefile

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Errors to be found with errors.Is; what is missing is os.ErrNotExist as usual.
var (
	// ErrNotRegular is returned for what is no regular file: a directory, FIFO, socket, device or symbolic link.
	ErrNotRegular = errors.New("not a regular file")
	// ErrTooLarge is returned for a file of more bytes than were asked for.
	ErrTooLarge = errors.New("file too large")
	// ErrTooDeep is returned where a name leads through more directories than are held open for it.
	ErrTooDeep = fmt.Errorf("more than %d directories deep", maxDepth)
	// ErrLink is returned where a symbolic link lies in the way of a form that follows none, or too many of them do.
	ErrLink = errors.New("symbolic link in the way")
)

const (
	// maxLinks bounds the links that one name may lead over, as the kernel does.
	maxLinks = 40
	// maxDepth bounds how many directories deep a name may lead, each of which is held open: a container that makes directories and
	// links could otherwise use up the process's descriptors.
	maxDepth = 256
)

// Open opens a regular file for reading. The directories above it are trusted and may be links; the file itself may not.
func Open(path string) (*os.File, error) {
	fd, err := retry(func() (int, error) { return unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0) })
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return reopen(fd, path)
}

// OpenIn opens a regular file below dir, which is trusted. No part of name may be a link, nor lead upwards.
func OpenIn(dir, name string) (*os.File, error) { return openBelow(dir, name, false) }

// OpenInRoot opens a regular file as a process whose root directory is root would: links are followed, absolute ones and
// ".." too, and never lead out of root.
func OpenInRoot(root, name string) (*os.File, error) { return openBelow(root, name, true) }

// Read returns what Open finds, whole: ErrTooLarge when it is more than max bytes.
func Read(path string, max int) ([]byte, error) {
	f, err := Open(path)
	if err != nil {
		return nil, err
	}
	return whole(f, max)
}

// ReadIn is Read with OpenIn.
func ReadIn(dir, name string, max int) ([]byte, error) {
	f, err := OpenIn(dir, name)
	if err != nil {
		return nil, err
	}
	return whole(f, max)
}

// ReadInRoot is Read with OpenInRoot.
func ReadInRoot(root, name string, max int) ([]byte, error) {
	f, err := OpenInRoot(root, name)
	if err != nil {
		return nil, err
	}
	return whole(f, max)
}

// Tail returns the last max bytes of what Open finds, or all of it when that is less.
func Tail(path string, max int) ([]byte, error) {
	f, err := Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	from := fi.Size() - int64(max)
	if from < 0 {
		from = 0
	}
	return io.ReadAll(io.NewSectionReader(f, from, int64(max)))
}

// Pipe opens the reading end of the pipe that path, a link of /proc/PID/fd, leads to now; want is its name as the kernel
// gives it ("pipe:[4711]"). A process that has put something else there meanwhile is refused, before it is opened.
func Pipe(path, want string) (*os.File, error) {
	fd, err := retry(func() (int, error) { return unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0) })
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	self := fmt.Sprintf("/proc/self/fd/%d", fd)
	if have, err := os.Readlink(self); err != nil || have != want || !strings.HasPrefix(want, "pipe:[") {
		return nil, &os.PathError{Op: "open", Path: path, Err: fmt.Errorf("it is %s, not %s, any more", have, want)}
	}
	return os.OpenFile(self, os.O_RDONLY|unix.O_NONBLOCK, 0)
}

// whole reads f to its end, at most max bytes, and closes it.
func whole(f *os.File, max int) ([]byte, error) {
	defer f.Close()
	// The size is a hint only: it may change at any time, and is 0 for files of /proc.
	if fi, err := f.Stat(); err == nil && fi.Size() > int64(max) {
		return nil, tooLarge(f.Name(), max)
	}
	b, err := io.ReadAll(io.LimitReader(f, int64(max)+1))
	if err == nil && len(b) > max {
		return nil, tooLarge(f.Name(), max)
	}
	return b, err
}

func tooLarge(name string, max int) error {
	return &os.PathError{Op: "read", Path: name, Err: fmt.Errorf("%w: more than %d bytes", ErrTooLarge, max)}
}

// reopen turns a descriptor made with O_PATH into one for reading, if it is a regular file, and closes it.
func reopen(fd int, name string) (*os.File, error) {
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, &os.PathError{Op: "stat", Path: name, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, &os.PathError{Op: "open", Path: name, Err: fmt.Errorf("%w but a %s", ErrNotRegular, kind(st.Mode))}
	}
	// O_NONBLOCK: a lease on the file must not make the open wait for its holder.
	r, err := retry(func() (int, error) {
		return unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(r), name), nil
}

func kind(mode uint32) string {
	switch mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return "directory"
	case unix.S_IFLNK:
		return "symbolic link"
	case unix.S_IFIFO:
		return "FIFO"
	case unix.S_IFSOCK:
		return "socket"
	}
	return "device"
}

// openBelow walks to name one part at a time. It holds the directories on its way open, and ".." goes back to the one it
// came from, so that a directory that is moved meanwhile leads nowhere else. It works on every kernel, which openat2 does
// not, and where a seccomp filter refuses that.
func openBelow(dir, name string, links bool) (*os.File, error) {
	full := filepath.Join(dir, name)
	fail := func(err error) (*os.File, error) { return nil, &os.PathError{Op: "open", Path: full, Err: err} }
	top, err := retry(func() (int, error) {
		return unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return fail(err)
	}
	at := []int{top}
	defer func() {
		for _, fd := range at {
			unix.Close(fd)
		}
	}()
	parts, followed := strings.Split(name, "/"), 0
	for len(parts) > 0 {
		part := parts[0]
		parts = parts[1:]
		switch {
		case part == "" || part == ".":
			continue
		case part == "..":
			if !links {
				return fail(errors.New("the name leads upwards"))
			}
			if n := len(at) - 1; n > 0 {
				unix.Close(at[n])
				at = at[:n]
			}
			continue
		}
		fd, err := retry(func() (int, error) {
			return unix.Openat(at[len(at)-1], part, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		})
		if err != nil {
			return fail(err)
		}
		target, err := readlink(fd)
		switch {
		case err == nil: // a link
			unix.Close(fd)
			if followed++; !links || followed > maxLinks {
				return fail(ErrLink)
			}
			if strings.HasPrefix(target, "/") {
				for _, fd := range at[1:] {
					unix.Close(fd)
				}
				at = at[:1]
			}
			parts = append(strings.Split(target, "/"), parts...)
		case len(parts) == 0:
			return reopen(fd, full)
		case len(at) > maxDepth:
			unix.Close(fd)
			return fail(ErrTooDeep)
		default:
			at = append(at, fd) // no directory: the next part says so
		}
	}
	return fail(fmt.Errorf("%w but a directory", ErrNotRegular))
}

// readlink returns where a descriptor made with O_PATH|O_NOFOLLOW leads; an error when it is no link.
func readlink(fd int) (string, error) {
	b := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, "", b)
	return string(b[:max(n, 0)]), err
}

func retry(f func() (int, error)) (int, error) {
	for {
		fd, err := f()
		if err != unix.EINTR {
			return fd, err
		}
	}
}
