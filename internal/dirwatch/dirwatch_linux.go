package dirwatch

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Watch signals, on a channel of capacity 1, that files of dir have been replaced, written or removed. It costs nothing
// while nothing happens.
func Watch(dir string) (changed <-chan struct{}, stop func(), err error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, nil, fmt.Errorf("watch %s: %w", dir, err)
	}
	f := os.NewFile(uintptr(fd), "inotify") // non-blocking: Close ends Read
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_MOVED_TO|unix.IN_CLOSE_WRITE|unix.IN_DELETE); err != nil {
		f.Close()
		return nil, nil, fmt.Errorf("watch %s: %w", dir, err)
	}
	signal := make(chan struct{}, 1)
	go func() {
		buf := make([]byte, 4096)
		for {
			if _, err := f.Read(buf); err != nil {
				return
			}
			select {
			case signal <- struct{}{}:
			default:
			}
		}
	}()
	return signal, func() { f.Close() }, nil
}
