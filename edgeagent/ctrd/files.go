package ctrd

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// filesDir is the directory of a pod's own files in its sandbox: a file system in memory, whose size is what the pod's
// containers can write to all of them together. The kernel counts it as memory of the container that writes, so that it is
// within the pod's limit too; it is gone with the sandbox, and with a reboot.
const filesDir = "files"

// What a pod's own files may take beside what the agent writes there. Most of it is for termination messages, of which
// 4096 bytes each are read.
const (
	filesSlack  = 64  // pages: a file of a few bytes takes one, and boards with pages of 16 KiB have as many messages as others
	filesInodes = 512 // files; a container can make none, the agent makes one for each attempt of a container
)

// Files implements podrun.Runtime.
func (r *Runtime) Files(podUID string) string { return filepath.Join(r.sandboxDir(podUID), filesDir) }

// mountFiles mounts the file system for a pod's own files, or makes the one that is there large enough.
func mountFiles(dir string, room int64) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	size := filesSize(room, int64(os.Getpagesize()))
	options := fmt.Sprintf("mode=0700,size=%d,nr_inodes=%d", size, filesInodes)
	flags := uintptr(unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC)
	if mountPoint(dir) {
		var st unix.Statfs_t
		if err := unix.Statfs(dir, &st); err != nil {
			return fmt.Errorf("pod files: %w", err)
		}
		if int64(st.Blocks)*int64(st.Bsize) >= size { // Bsize has 32 bits on 32-bit ARM
			return nil
		}
		flags |= unix.MS_REMOUNT
	}
	if err := unix.Mount("petrel-files", dir, "tmpfs", flags, options); err != nil {
		return fmt.Errorf("pod files: mounting a tmpfs: %w", err)
	}
	return nil
}

// filesSize is how large the file system for a pod's own files is, in bytes, on a kernel with pages of that size.
func filesSize(room, page int64) int64 {
	return (room/page + 4 + filesSlack) * page // each of the agent's files ends with a page that is not full
}

// mountPoint reports whether a file system is mounted on a directory of the agent's own.
func mountPoint(dir string) bool {
	var a, b unix.Stat_t
	return unix.Lstat(dir, &a) == nil && unix.Lstat(filepath.Dir(dir), &b) == nil && a.Dev != b.Dev
}
