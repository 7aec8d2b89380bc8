// Package durable writes and renames files so that a power cut leaves the old content or the new one, never a part.
//
//	WriteFile       new file beside path, its bytes on disk, renamed over path, the rename on disk
//	Replace         the same, and the new file stays open
//	WriteVolatile   the same without waiting for the disk: a reader sees the old or the new content; a power cut may lose either
//	Rename          a rename that is on disk
//	SyncDir         the names in a directory are on disk
//
// The new file is PATH.new. What a power cut leaves of it the next write of path removes, so nothing piles up. Calls for one path
// wait for each other within a process; that two processes do not write one path is up to the caller, whose directories are its
// own. Modes are exactly those that are asked for, whatever the umask.
package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"
)

// suffix of a file that is being written. No name that callers list as their own may end so.
const suffix = ".new"

// WriteFile makes path hold data, durably. After an error path is as it was, unless it is the directory that could not be synced:
// then it holds data, and a power cut may bring the old content back.
func WriteFile(path string, data []byte, mode fs.FileMode) error {
	return write(path, data, mode, (*os.File).Sync, SyncDir)
}

// WriteVolatile makes path hold data in one step as readers see it, without waiting for the disk: for what can be found out again.
func WriteVolatile(path string, data []byte, mode fs.FileMode) error {
	return write(path, data, mode, func(*os.File) error { return nil }, func(string) error { return nil })
}

func write(path string, data []byte, mode fs.FileMode, sync func(*os.File) error, syncDir func(string) error) error {
	defer lock(path)()
	f, err := stage(path, data, mode, sync)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil { // before the rename: Windows renames no open file
		return discard(path, err)
	}
	if err := os.Rename(path+suffix, path); err != nil {
		return discard(path, err)
	}
	return syncDir(filepath.Dir(path))
}

// Replace is WriteFile, and returns the new file open for reading and writing, at its end. The file is nil exactly when path is as
// it was: with an error of the directory's sync it is there.
func Replace(path string, data []byte, mode fs.FileMode) (*os.File, error) {
	defer lock(path)()
	f, err := stage(path, data, mode, (*os.File).Sync)
	if err != nil {
		return nil, err
	}
	if err := os.Rename(path+suffix, path); err != nil {
		return nil, discard(path, errors.Join(err, f.Close()))
	}
	return f, SyncDir(filepath.Dir(path))
}

// stage writes the new file beside path. After an error there is none.
func stage(path string, data []byte, mode fs.FileMode, sync func(*os.File) error) (*os.File, error) {
	next := path + suffix
	if err := os.Remove(next); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	f, err := os.OpenFile(next, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600) // with no more rights than that while it is incomplete
	if err != nil {
		return nil, err
	}
	err = f.Chmod(mode)
	if err == nil {
		_, err = f.Write(data)
	}
	if err == nil {
		err = sync(f)
	}
	if err != nil {
		return nil, discard(path, errors.Join(err, f.Close()))
	}
	return f, nil
}

// discard removes the new file beside path and returns err.
func discard(path string, err error) error {
	_ = os.Remove(path + suffix) // otherwise the next write does
	return err
}

// Rename renames a file or directory, durably: next replaces what has that name. Both are on one file system, and old's
// directory is not synced: a power cut may leave both names when it is another. The content of the file must be on disk already.
func Rename(old, next string) error {
	if err := os.Rename(old, next); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(next))
}

// SyncDir makes the names in dir durable, as files that are new, renamed or removed need it.
func SyncDir(dir string) error {
	if runtime.GOOS == "windows" { // which has no such call and does it by itself
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// writing holds the paths that are being written; free is signalled when one is not any more.
var (
	mu      sync.Mutex
	free    = sync.NewCond(&mu)
	writing = map[string]bool{}
)

// lock waits until nobody else writes path, and returns what ends the caller's own turn.
func lock(path string) func() {
	path = filepath.Clean(path)
	mu.Lock()
	defer mu.Unlock()
	for writing[path] {
		free.Wait()
	}
	writing[path] = true
	return func() {
		mu.Lock()
		defer mu.Unlock()
		delete(writing, path)
		free.Broadcast()
	}
}
