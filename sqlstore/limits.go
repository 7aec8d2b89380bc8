package sqlstore

import (
	"errors"
	"fmt"
)

// Defaults of Config, in bytes.
const (
	// defaultMaxBytes: each object is held in memory once as bytes, and those that the hub's loops read once more decoded. A
	// fleet of 1,000 nodes and 10,000 pods has about 40 MiB of objects; a board of 512 MB still lives with a full store.
	defaultMaxBytes = 256 << 20
	// defaultHistoryBytes is about what 20,000 revisions of usual size have.
	defaultHistoryBytes = 32 << 20
)

// entryOverhead is what an entry costs in memory beyond its key and value, in bytes.
const entryOverhead = 128

// smallGrowth is by how many bytes an object may grow in one change that is still taken when the store is over its limit:
// statuses, marks of deletion. hardLimit bounds what such changes add up to.
const smallGrowth = 4 << 10

// hardLimit is where small growth ends too: an eighth above the limit.
func hardLimit(limit int64) int64 { return limit + limit/8 }

// FullError says that the store takes nothing just now that makes it grow. Deletions, changes that make objects smaller and
// Ops with Frees are taken all the same.
type FullError struct {
	// Bytes is what the store's objects take, Limit what they may take. Limit is 0 when it is the disk that is full.
	Bytes, Limit int64
	Path         string
}

func (e *FullError) Error() string {
	if e.Limit > 0 {
		return fmt.Sprintf("the store holds %s of objects and may hold %s: only deletions, and changes that make objects smaller, are accepted; delete objects, or raise the store's limit",
			bytesText(e.Bytes), bytesText(e.Limit))
	}
	return fmt.Sprintf("the disk of %s is full: only deletions, and changes that make objects smaller, are accepted until there is room on it", e.Path)
}

func bytesText(n int64) string {
	switch {
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%d bytes", n)
}

func (e *Entry) cost() int64 { return int64(len(e.Key)+len(e.Value)) + entryOverhead }

// growth is what a transaction would do to the size of the store.
type growth struct {
	bytes int64
	// frees: it makes the store no larger, or is a step on the way to that. small: no object grows by more than smallGrowth,
	// and nothing is created but what is expendable.
	frees, small bool
}

// count adds one Op, whose key is at old, to g.
func (g *growth) count(op *Op, old *Entry, expendable bool) {
	var had, has int64
	if old != nil {
		had = old.cost()
	}
	if !op.Delete {
		has = int64(len(op.Key)+len(op.Value)) + entryOverhead
	}
	g.bytes += has - had
	if op.Frees && old != nil && has-had <= smallGrowth {
		return
	}
	if has > had {
		g.frees = false
	}
	if has-had > smallGrowth || old == nil && !expendable {
		g.small = false
	}
}

// room is what a batch may take. The committer keeps it.
type room struct {
	living int64 // bytes of all entries
	limit  int64
	// expendable are prefixes of keys that may be lost, and that the caller bounds.
	expendable []string
	refused    bool // the limit has refused growth since it was last cleared
	// frugal: the disk is short, so deletions go without their last value and nothing may grow.
	frugal bool
	path   string
}

func (r *room) isExpendable(key string) bool {
	return hasAnyPrefix(key, r.expendable)
}

// refuses returns the *FullError with which a transaction is refused, nil when it may go on.
func (r *room) refuses(g growth) error {
	if g.frees || g.bytes <= 0 {
		return nil
	}
	if r.frugal {
		return &FullError{Bytes: r.living, Path: r.path}
	}
	limit := r.limit
	if g.small {
		limit = hardLimit(limit)
	}
	if r.living+g.bytes <= limit {
		return nil
	}
	r.refused = true
	return &FullError{Bytes: r.living, Limit: r.limit, Path: r.path}
}

// relieved: the store is well below its limit.
func (r *room) relieved() bool { return r.living < r.limit-r.limit/20 }

// isFull reports whether SQLite failed for want of space on the disk.
func isFull(err error) bool {
	const codeFull = 13
	return sqliteCode(err) == codeFull || errors.Is(err, errNoSpace)
}

// errNoSpace is for tests.
var errNoSpace = errors.New("no space left")
