//go:build !linux

package sqlite

import "os"

// diskSpace is not known on this system.
func diskSpace(string) (free, total int64, ok bool) { return 0, 0, false }

// allocate gives f size bytes of the disk.
func allocate(f *os.File, size int64) error { return fill(f, size) }
