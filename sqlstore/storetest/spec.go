package storetest

import (
	"context"
	"crypto/rand"
	"sort"
	"strconv"
	"strings"
	"sync"

	"petrel.dev/petrel/sqlstore"
)

// Spec is a Store that keeps a list of everything that happened and answers each question by going through it: slow,
// short, and plainly right. The zero value is an empty store.
type Spec struct {
	mu        sync.Mutex
	log       []logged // log[i] is revision i+1
	compacted sqlstore.Revision
	changed   chan struct{} // closed at the next commit, and by Close
	closed    bool
	id        string // made when first asked for
}

// History implements Store. A Spec lives once.
func (m *Spec) History() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.id == "" {
		m.id = rand.Text()
	}
	return m.id
}

type logged struct {
	sqlstore.Event
	last bool // ends its transaction
}

// Commit implements Store.
func (m *Spec) Commit(ctx context.Context, ops ...sqlstore.Op) ([]sqlstore.Revision, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, sqlstore.ErrClosed
	}
	before := len(m.log)
	var revs []sqlstore.Revision
	for i, op := range ops {
		old, exists := m.at(m.rev())[op.Key]
		if op.If != sqlstore.AnyRevision && op.If != old.Rev || op.Delete && !exists {
			m.log = m.log[:before]
			return nil, &sqlstore.ConflictError{Key: op.Key, Have: old.Rev, Want: op.If}
		}
		e := logged{last: i == len(ops)-1}
		e.Event = sqlstore.Event{Key: op.Key, Rev: m.rev() + 1, Created: m.rev() + 1, Deleted: op.Delete, Value: op.Value}
		if op.RevAt >= 0 && op.Value != nil {
			e.Value = []byte(string(op.Value[:op.RevAt]) + strconv.FormatInt(int64(e.Rev), 10) + string(op.Value[op.RevAt:]))
		}
		if exists {
			e.Created, e.Prev = old.Created, old.Value
		}
		m.log = append(m.log, e)
		revs = append(revs, e.Rev)
	}
	m.wake()
	return revs, nil
}

// wake has watchers look again. m.mu is held.
func (m *Spec) wake() {
	if m.changed != nil {
		close(m.changed)
		m.changed = nil
	}
}

// Close implements Store.
func (m *Spec) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	m.wake()
	return nil
}

func (m *Spec) rev() sqlstore.Revision { return sqlstore.Revision(len(m.log)) }

// at replays the log up to rev.
func (m *Spec) at(rev sqlstore.Revision) map[string]sqlstore.Entry {
	now := map[string]sqlstore.Entry{}
	for _, e := range m.log[:rev] {
		if e.Deleted {
			delete(now, e.Key)
		} else {
			now[e.Key] = sqlstore.Entry{Key: e.Key, Value: e.Value, Rev: e.Rev, Created: e.Created}
		}
	}
	return now
}

// Get implements Store.
func (m *Spec) Get(_ context.Context, key string) (sqlstore.Entry, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return sqlstore.Entry{}, false, sqlstore.ErrClosed
	}
	e, ok := m.at(m.rev())[key]
	return e, ok, nil
}

// Revision implements Store.
func (m *Spec) Revision(context.Context) (sqlstore.Revision, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return 0, sqlstore.ErrClosed
	}
	return m.rev(), nil
}

func (m *Spec) last() sqlstore.Revision {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.rev()
}

// List implements Store.
func (m *Spec) List(_ context.Context, prefix, after string, limit int, at sqlstore.Revision) (sqlstore.Page, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return sqlstore.Page{}, sqlstore.ErrClosed
	}
	if at == 0 {
		at = m.rev()
	}
	if at > m.rev() || at < 0 {
		return sqlstore.Page{}, &sqlstore.FutureError{Asked: at, Current: m.rev()}
	}
	if at < m.compacted {
		return sqlstore.Page{}, &sqlstore.CompactedError{Asked: at, Oldest: m.compacted}
	}
	p := sqlstore.Page{Rev: at}
	for key, e := range m.at(at) {
		if strings.HasPrefix(key, prefix) && (after == "" || key > after) {
			p.Entries = append(p.Entries, e)
		}
	}
	sort.Slice(p.Entries, func(i, j int) bool { return p.Entries[i].Key < p.Entries[j].Key })
	if limit > 0 && limit < len(p.Entries) {
		p.Remain = len(p.Entries) - limit
		p.Entries = p.Entries[:limit]
	}
	p.More = p.Remain > 0
	return p, nil
}

// Compact implements Store.
func (m *Spec) Compact(_ context.Context, to sqlstore.Revision) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if to > m.rev() {
		return &sqlstore.FutureError{Asked: to, Current: m.rev()}
	}
	m.compacted = max(m.compacted, to)
	return nil
}

// Watch implements Store.
func (m *Spec) Watch(_ context.Context, prefix string, from sqlstore.Revision) (sqlstore.Watcher, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, sqlstore.ErrClosed
	}
	if from > m.rev() || from < 0 {
		return nil, &sqlstore.FutureError{Asked: from, Current: m.rev()}
	}
	if from < m.compacted {
		return nil, &sqlstore.CompactedError{Asked: from, Oldest: m.compacted}
	}
	return &specWatcher{m: m, prefix: prefix, pos: from, closed: make(chan struct{})}, nil
}

type specWatcher struct {
	m      *Spec
	prefix string
	pos    sqlstore.Revision // guarded by m.mu
	once   sync.Once
	closed chan struct{}
}

// Next implements sqlstore.Watcher.
func (w *specWatcher) Next(ctx context.Context) ([]sqlstore.Event, error) {
	for {
		select {
		case <-w.closed:
			return nil, sqlstore.ErrClosed
		case <-ctx.Done():
			return nil, ctx.Err()
		default:
		}
		changed := w.m.next()
		if events, err := w.poll(); err != nil || len(events) > 0 {
			return events, err
		}
		select {
		case <-changed:
		case <-w.closed:
		case <-ctx.Done():
		}
	}
}

// next returns a channel that is closed at the next commit.
func (m *Spec) next() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.changed == nil {
		m.changed = make(chan struct{})
	}
	return m.changed
}

// poll returns what there is now, maybe nothing.
func (w *specWatcher) poll() ([]sqlstore.Event, error) {
	w.m.mu.Lock()
	defer w.m.mu.Unlock()
	if w.m.closed {
		return nil, sqlstore.ErrClosed
	}
	events := w.unseen()
	if len(events) > 0 && events[0].Rev <= w.m.compacted {
		return nil, &sqlstore.CompactedError{Asked: w.pos, Oldest: w.m.compacted}
	}
	w.pos = w.m.rev()
	return events, nil
}

func (w *specWatcher) unseen() (events []sqlstore.Event) {
	for _, e := range w.m.log[w.pos:] {
		if strings.HasPrefix(e.Key, w.prefix) {
			events = append(events, e.Event)
		}
	}
	return events
}

// Revision implements sqlstore.Watcher.
func (w *specWatcher) Revision() sqlstore.Revision {
	w.m.mu.Lock()
	defer w.m.mu.Unlock()
	if events := w.unseen(); len(events) > 0 {
		return events[0].Rev - 1
	}
	return w.m.rev()
}

// Close implements sqlstore.Watcher.
func (w *specWatcher) Close() { w.once.Do(func() { close(w.closed) }) }
