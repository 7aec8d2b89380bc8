package sqlite

import (
	"os"

	"golang.org/x/sys/unix"
)

// diskSpace returns what is free for this process, and how large the file system is, in bytes.
func diskSpace(dir string) (free, total int64, ok bool) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, 0, false
	}
	return int64(st.Bavail) * int64(st.Bsize), int64(st.Blocks) * int64(st.Bsize), true
}

// allocate gives f size bytes of the disk, without writing them where the file system can.
func allocate(f *os.File, size int64) error {
	err := unix.Fallocate(int(f.Fd()), 0, 0, size)
	if err == unix.EOPNOTSUPP || err == unix.ENOSYS {
		return fill(f, size)
	}
	return err
}
