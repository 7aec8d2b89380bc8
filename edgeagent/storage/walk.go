package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// What a walk reads at most. Who makes more cannot be measured, and is treated as one who has used too much.
const (
	maxEntries = 1_000_000
	maxDepth   = 512
	// maxLinked bounds the memory for files with several names, which count once.
	maxLinked = 200_000
	// breath is how many entries a walk looks at before it pauses: others use the card as well.
	breath = 2048
)

// ErrUnmeasurable is a directory that holds more than a walk reads; the message says what.
var ErrUnmeasurable = errors.New("cannot be measured")

// Usage is what a directory holds.
type Usage struct {
	Bytes int64 // of blocks: holes in files count nothing
	Files int64
}

// Walk measures a directory that anybody may have shaped, and goes on shaping: it opens directories only, each relative
// to the one above and never through a link, does not leave the file system, and reads a bounded number of entries. What
// vanishes meanwhile is passed over. A directory that does not exist holds nothing.
func Walk(ctx context.Context, dir string) (Usage, error) {
	fd, err := openDir(unix.AT_FDCWD, dir)
	if errors.Is(err, unix.ENOENT) {
		return Usage{}, nil
	}
	if err != nil {
		return Usage{}, fmt.Errorf("usage of %s: %w", dir, err)
	}
	w := &walk{ctx: ctx, linked: map[uint64]bool{}}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return Usage{}, fmt.Errorf("usage of %s: %w", dir, err)
	}
	w.device = uint64(st.Dev)
	w.add(&st)
	if err := w.dir(fd, 1); err != nil {
		return w.sum, fmt.Errorf("usage of %s: %w", dir, err)
	}
	return w.sum, nil
}

func openDir(at int, name string) (int, error) {
	const how = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC
	fd, err := unix.Openat(at, name, how|unix.O_NOATIME, 0) // a look writes nothing
	if errors.Is(err, unix.EPERM) {                         // another user's, and this process is no full root
		fd, err = unix.Openat(at, name, how, 0)
	}
	return fd, err
}

// walk is one measurement on its way.
type walk struct {
	ctx    context.Context
	device uint64
	linked map[uint64]bool // inodes with several names that have been counted
	sum    Usage
	seen   int
}

// dir adds what is below an open directory, and closes it.
func (w *walk) dir(fd, depth int) error {
	f := os.NewFile(uintptr(fd), "")
	defer f.Close()
	if depth > maxDepth {
		return fmt.Errorf("%w: its directories are more than %d deep", ErrUnmeasurable, maxDepth)
	}
	for {
		names, err := f.Readdirnames(256)
		for _, name := range names {
			if err := w.entry(fd, name, depth); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) || errors.Is(err, unix.ENOENT) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (w *walk) entry(at int, name string, depth int) error {
	if w.seen++; w.seen > maxEntries {
		return fmt.Errorf("%w: it holds more than %d files", ErrUnmeasurable, maxEntries)
	}
	if w.seen%breath == 0 {
		select {
		case <-w.ctx.Done():
			return w.ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
	var st unix.Stat_t
	err := unix.Fstatat(at, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	if uint64(st.Dev) != w.device { // something is mounted here: not on this disk, or counted where it belongs
		return nil
	}
	isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	if !isDir && st.Nlink > 1 {
		if w.linked[st.Ino] {
			return nil
		}
		if len(w.linked) >= maxLinked {
			return fmt.Errorf("%w: it holds more than %d files with several names", ErrUnmeasurable, maxLinked)
		}
		w.linked[st.Ino] = true
	}
	w.add(&st)
	if !isDir {
		return nil
	}
	fd, err := openDir(at, name)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP): // replaced meanwhile
		return nil
	case err != nil:
		return err
	}
	return w.dir(fd, depth+1)
}

func (w *walk) add(st *unix.Stat_t) {
	w.sum.Bytes += st.Blocks * 512
	w.sum.Files++
}
