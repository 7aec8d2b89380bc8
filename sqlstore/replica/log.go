package replica

import (
	"context"
	"sync/atomic"
	"time"

	"petrel.dev/petrel/sqlstore"
)

// Source is where an engine keeps the changes that have left memory. Both methods are called by any goroutine.
type Source interface {
	// Changes calls f in order for each change of keys with the prefix in (from, upTo], until it returns false.
	Changes(ctx context.Context, prefix string, from, upTo sqlstore.Revision, f func(*Change) bool) error
	// Boundary returns the first commit boundary at or after rev; cur, which is one, when none is before it.
	Boundary(ctx context.Context, rev, cur sqlstore.Revision) (sqlstore.Revision, error)
}

// Config is what a Log begins with.
type Config struct {
	// Index holds what exists as of Rev. It is the Log's from then on.
	Index *Index
	// Rev is the last committed revision, Compacted the oldest whose history is still kept.
	Rev, Compacted sqlstore.Revision
	// Living is what the entries of Index cost, Dead what superseded ones still cost in the engine; in bytes.
	Living, Dead int64
	// Source has the changes that are no longer in memory. nil: they are gone, and the oldest revision moves with them.
	Source Source
	// Ring is how many changes stay in memory. 0: 4,096, or all that Keep allows when there is no Source. Negative: none.
	Ring int
	// Keep bounds the history.
	Keep Keep
	// MaxBytes bounds what the entries may cost in memory. 0: 256 MiB.
	MaxBytes int64
	// Expendable are prefixes of keys that a full store still takes small ones of.
	Expendable []string
	// Tenant names whose a key is; "" for nobody's. A tenant may have no more of MaxBytes than what is left for all others.
	// nil: there are no tenants.
	Tenant func(key string) string
	// Path names the store in a *sqlstore.FullError.
	Path string
}

// Log is what an engine holds in memory: all current entries, the newest changes, and who watches. Get, List, Revision and
// Watch are sqlstore.Store's and may be called by any goroutine; all else belongs to the one goroutine (or the one lock) that
// commits.
type Log struct {
	// Room says what a batch may take; the committer's own.
	Room Room

	index   *Index // as the open batch sees it; the committer's own
	keep    Keep   // never changes
	state   atomic.Pointer[state]
	history *history
	closed  atomic.Bool
}

// state is everything that is current as of rev. It is immutable.
type state struct {
	index *Index
	rev   sqlstore.Revision
}

// New returns a Log that has what cfg says.
func New(cfg Config) *Log {
	cfg.Keep.setDefaults()
	if cfg.MaxBytes <= 0 {
		cfg.MaxBytes = defaultMaxBytes
	}
	l := &Log{index: cfg.Index, keep: cfg.Keep, history: newHistory(cfg)}
	l.Room = Room{living: cfg.Living, limit: cfg.MaxBytes, expendable: cfg.Expendable, path: cfg.Path, tenant: cfg.Tenant, by: map[string]int64{}}
	if cfg.Tenant != nil {
		cfg.Index.scan("", "", func(e *sqlstore.Entry) bool {
			l.Room.add(cfg.Tenant(e.Key), Cost(e))
			return true
		})
	}
	l.state.Store(&state{index: cfg.Index.snapshot(), rev: cfg.Rev})
	l.history.mark(time.Now())
	return l
}

// Rev returns the last published revision. It never fails: engines use it.
func (l *Log) Rev() sqlstore.Revision { return l.state.Load().rev }

// Len returns the number of keys.
func (l *Log) Len() int { return l.state.Load().index.Len() }

// Snapshot returns the last published revision and a function that yields each entry as of it, in order.
func (l *Log) Snapshot() (sqlstore.Revision, func(yield func(*sqlstore.Entry) bool)) {
	s := l.state.Load()
	return s.rev, func(yield func(*sqlstore.Entry) bool) { s.index.scan("", "", yield) }
}

// Get implements sqlstore.Store.
func (l *Log) Get(_ context.Context, key string) (sqlstore.Entry, bool, error) {
	if l.closed.Load() {
		return sqlstore.Entry{}, false, sqlstore.ErrClosed
	}
	e, ok := l.state.Load().index.get(key)
	if !ok {
		return sqlstore.Entry{}, false, nil
	}
	return *e, true, nil
}

// Revision implements sqlstore.Store.
func (l *Log) Revision(context.Context) (sqlstore.Revision, error) {
	if l.closed.Load() {
		return 0, sqlstore.ErrClosed
	}
	return l.Rev(), nil
}

// Close has all reads and watchers fail with sqlstore.ErrClosed.
func (l *Log) Close() {
	l.closed.Store(true)
	l.history.closeWatchers()
}
