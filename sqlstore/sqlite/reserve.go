package sqlite

import (
	"errors"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// Bounds of the reserve in bytes. It is an eighth of the file system, within these.
const (
	minReserve = 256 << 10
	maxReserve = 8 << 20
)

// reserve is a file that only takes up room. When the disk is full it is given up, so that there is room to delete: what
// frees space in a database must first be written to its log.
//
//	in place ──disk full──► given up ──compaction, deletions──► in place again, as large as there is room for
//
// Nothing that makes the store grow is written while it is not in place. Only the committer uses it.
type reserve struct {
	path string
	size int64 // what it is to have
	held int64 // what it has
	// pages says that the database has free pages to write to, so that it need not grow and a smaller reserve will do.
	pages bool
	log   *slog.Logger
}

func newReserve(path string, log *slog.Logger) *reserve {
	r := &reserve{path: path + ".reserve", size: maxReserve, log: log}
	if _, total, ok := diskSpace(filepath.Dir(path)); ok {
		r.size = min(max(total/8, minReserve), maxReserve)
	}
	if fi, err := os.Stat(r.path); err == nil {
		r.held = fi.Size()
	}
	return r
}

// margin returns what should be free beside the reserve before the store grows on, for the log of its writes.
func (r *reserve) margin() int64 { return r.size / 4 }

// free returns what the disk has left, a large number where that is not known.
func (r *reserve) free() int64 {
	if n, _, ok := diskSpace(filepath.Dir(r.path)); ok {
		return n
	}
	return 1 << 60
}

// giveUp frees the reserve's room.
func (r *reserve) giveUp() {
	if r.held == 0 {
		return
	}
	if err := os.Remove(r.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		r.log.Warn("reserve of the store could not be given up", "path", r.path, "error", err)
		return
	}
	r.held = 0
}

// floor returns how much of the reserve must be there before the store grows on.
func (r *reserve) floor() int64 {
	if r.pages {
		return r.size / 4
	}
	return r.size / 2
}

// make puts the reserve in its place and reports whether there is room for the store to grow: the reserve's floor comes
// first, then the margin, then the rest of the reserve.
func (r *reserve) make() bool {
	free := r.free()
	if r.held >= r.size && free >= r.margin() {
		return true
	}
	total := free + r.held
	want := min(r.size, max(r.floor(), total-r.margin()), total-minReserve/2)
	if want >= minReserve && want != r.held {
		r.resize(want)
	}
	return r.held >= r.floor() && r.free() >= r.margin()
}

// whole reports whether the reserve has the size that it is to have: the disk is not short.
func (r *reserve) whole() bool { return r.held >= r.size }

func (r *reserve) resize(want int64) {
	f, err := os.OpenFile(r.path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		r.log.Warn("reserve of the store could not be made", "path", r.path, "error", err)
		return
	}
	if want < r.held {
		err = f.Truncate(want)
	} else {
		err = allocate(f, want)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		r.held = 1 // whatever it has, it is to go
		r.giveUp()
		return
	}
	r.held = want
}

// fill writes size bytes that no file system compresses.
func fill(f *os.File, size int64) error {
	var seed [32]byte
	random := rand.NewChaCha8(seed)
	buf := make([]byte, 64<<10)
	for at := int64(0); at < size; at += int64(len(buf)) {
		_, _ = random.Read(buf)
		if _, err := f.WriteAt(buf[:min(int64(len(buf)), size-at)], at); err != nil {
			return err
		}
	}
	return nil
}
