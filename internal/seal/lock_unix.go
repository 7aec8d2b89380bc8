//go:build unix

package seal

import (
	"os"

	"golang.org/x/sys/unix"
)

// lockDir keeps other processes from editing key files of a directory until unlock is called, or this process ends.
func lockDir(dir string) (unlock func(), err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}
