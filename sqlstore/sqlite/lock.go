package sqlite

import (
	"fmt"
	"os"
)

// InUseError says that another process has the store open.
type InUseError struct{ Path string }

func (e *InUseError) Error() string {
	return fmt.Sprintf("store %s is in use by another process: only one hub can run on it; stop that one first", e.Path)
}

// fileLock keeps a second hub away from the file: SQLite would let it in, but each would trust its own memory.
type fileLock struct{ f *os.File }

func lockFile(path string) (*fileLock, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	taken, err := tryLock(f)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	if !taken {
		f.Close()
		return nil, &InUseError{Path: path[:len(path)-len(".lock")]}
	}
	return &fileLock{f: f}, nil
}

// unlock frees the lock. The file stays: removing it would let two processes lock two files of one name.
func (l *fileLock) unlock() { l.f.Close() }
