package sqlstore

import (
	"context"
	"fmt"
	"strconv"
	"time"
)

// Bounds of one SQLite transaction; a single larger Commit still goes through whole.
const (
	maxBatchOps   = 4096
	maxBatchBytes = 8 << 20
)

// maxValue is the largest value of a key in bytes. The API refuses bodies long before; this keeps SQLite's own limit
// (1e9) from failing a batch that others share.
const maxValue = 256 << 20

// Commit makes all ops durable, or none, and returns the revision of each. Ops of one Commit see those before them. Errors:
// *ConflictError when a precondition fails, or when a key to delete does not exist; ErrClosed; ctx's error only when
// nothing was committed; otherwise the disk's, and nothing was committed. It waits for Run to be running.
func (db *DB) Commit(ctx context.Context, ops ...Op) ([]Revision, error) {
	if len(ops) == 0 {
		return nil, nil
	}
	for i := range ops {
		if err := ops[i].check(); err != nil {
			return nil, err
		}
	}
	r := &request{ops: ops}
	if err := db.queue.do(ctx, r); err != nil {
		return nil, err
	}
	return r.revs, nil
}

func (op *Op) check() error {
	switch {
	case op.Key == "":
		return fmt.Errorf("commit: empty key")
	case op.Delete && op.If == 0:
		return fmt.Errorf("commit: key %q is to be deleted and must not exist", op.Key)
	case op.If < AnyRevision:
		return fmt.Errorf("commit: key %q: precondition %d is no revision", op.Key, op.If)
	case op.RevAt > len(op.Value):
		return fmt.Errorf("commit: key %q: revision goes at %d of a value of %d bytes", op.Key, op.RevAt, len(op.Value))
	case len(op.Value) > maxValue:
		return fmt.Errorf("commit: key %q: value of %d bytes, at most %d are allowed", op.Key, len(op.Value), maxValue)
	}
	return nil
}

// value is what the op stores as revision rev.
func (op *Op) value(rev Revision) []byte {
	if op.RevAt < 0 || op.Value == nil {
		return op.Value
	}
	var digits [20]byte
	d := strconv.AppendInt(digits[:0], int64(rev), 10)
	v := make([]byte, 0, len(op.Value)+len(d))
	v = append(v, op.Value[:op.RevAt]...)
	v = append(v, d...)
	return append(v, op.Value[op.RevAt:]...)
}

// change is one revision, as the log and the history hold it. It is immutable once published.
type change struct {
	entry   *Entry // for a deletion, Value is the last state that came with the Op
	deleted bool
	pos     int    // position within its transaction
	last    bool   // last of its transaction: a commit boundary
	prev    *Entry // what it superseded, nil if nothing
}

// begun is the revision that its transaction began with.
func (c *change) begun() Revision { return c.entry.Rev - Revision(c.pos) }

// bytes is what the change keeps in memory: its value, and the one before.
func (c *change) bytes() int {
	n := len(c.entry.Value)
	if c.prev != nil {
		n += len(c.prev.Value)
	}
	return n
}

// dead is what the change has made superfluous in the file: what it superseded, and itself when it is a deletion.
func (c *change) dead() (n int64) {
	if c.prev != nil {
		n = c.prev.cost()
	}
	if c.deleted {
		n += c.entry.cost()
	}
	return n
}

func (c *change) event() Event {
	e := Event{Key: c.entry.Key, Rev: c.entry.Rev, Created: c.entry.Created, Deleted: c.deleted, Value: c.entry.Value}
	if c.prev != nil {
		e.Prev = c.prev.Value
	}
	return e
}

func (db *DB) commitLoop(ctx context.Context) error {
	db.begin(time.Now())
	for {
		var retry <-chan time.Time
		if db.room.frugal {
			retry = time.After(tendEvery)
		}
		select {
		case <-db.queue.signal:
		case <-retry:
			db.tend(time.Now())
			continue
		case <-ctx.Done():
			return nil
		case <-db.closing.Done():
			return nil
		}
		if batch := db.queue.take(maxBatchOps, maxBatchBytes); len(batch) > 0 {
			db.commitBatch(batch)
		}
	}
}

// commitBatch settles each request of the batch, then does the upkeep that the writes have made due: nobody's answer
// waits for that. A conflict is told only when what it conflicts with, which may be of the same batch, can be read.
func (db *DB) commitBatch(batch []*request) {
	var commits []*request
	for _, r := range batch {
		if len(r.ops) > 0 {
			commits = append(commits, r)
		}
	}
	if db.room.frugal {
		db.recover()
	}
	before := db.rev()
	switch err := db.try(commits); {
	case isFull(err):
		db.rescue(commits)
	case err != nil:
		// Those with a conflict too: what they conflict with may be what could not be written.
		for _, r := range commits {
			r.revs, r.err = nil, err
		}
	}
	for _, r := range commits {
		close(r.done)
	}
	for _, r := range batch {
		if len(r.ops) == 0 {
			r.err = db.compactTo(r.compact)
			close(r.done)
		}
	}
	if db.rev() != before {
		db.upkeep(time.Now())
		db.tend(time.Now())
	}
	db.tell()
}

// try commits the requests in one transaction, leaving out those whose preconditions fail. When it returns an error,
// nothing of any of them was committed.
func (db *DB) try(commits []*request) error {
	var b batchBuilder
	b.begin(db.file.index, db.rev(), &db.room)
	for _, r := range commits {
		r.revs, r.err = b.add(r.ops)
	}
	if len(b.changes) == 0 {
		return nil
	}
	if err := db.file.write(b.changes); err != nil {
		b.undo()
		return fmt.Errorf("commit to %s: %w", db.cfg.Path, err)
	}
	next := &state{index: db.file.index.snapshot(), rev: b.rev}
	db.history.append(b.changes, func() { db.state.Store(next) })
	return nil
}

// batchBuilder applies transactions to the index, one after the other, and remembers how to take them back.
type batchBuilder struct {
	index   *index
	room    *room
	rev     Revision
	changes []*change
	grown   int64 // by how much room.living has grown
}

func (b *batchBuilder) begin(x *index, rev Revision, r *room) { b.index, b.rev, b.room = x, rev, r }

// add applies one transaction, or leaves everything as it was.
func (b *batchBuilder) add(ops []Op) ([]Revision, error) {
	first, rev := len(b.changes), b.rev
	revs := make([]Revision, len(ops))
	g := growth{frees: true, small: true}
	for i := range ops {
		op := &ops[i]
		old, exists := b.index.get(op.Key)
		var have Revision
		if exists {
			have = old.Rev
		}
		if op.If != AnyRevision && op.If != have || op.Delete && !exists {
			b.undoFrom(first)
			b.rev = rev
			return nil, &ConflictError{Key: op.Key, Have: have, Want: op.If}
		}
		g.count(op, old, b.room.isExpendable(op.Key))
		b.rev++
		e := &Entry{Key: op.Key, Value: op.value(b.rev), Rev: b.rev, Created: b.rev}
		if exists {
			e.Key, e.Created = old.Key, old.Created // one copy of the key is enough
		}
		if op.Delete {
			b.index.remove(op.Key)
			if b.room.frugal {
				e.Value = nil // watchers have the value before
			}
		} else {
			b.index.put(e)
		}
		b.changes = append(b.changes, &change{entry: e, deleted: op.Delete, pos: i, last: i == len(ops)-1, prev: old})
		revs[i] = b.rev
	}
	if err := b.room.refuses(g); err != nil {
		b.undoFrom(first)
		b.rev = rev
		return nil, err
	}
	b.room.living += g.bytes
	b.grown += g.bytes
	return revs, nil
}

func (b *batchBuilder) undo() {
	b.undoFrom(0)
	b.room.living -= b.grown
}

func (b *batchBuilder) undoFrom(first int) {
	for i := len(b.changes) - 1; i >= first; i-- {
		b.index.restore(b.changes[i].entry.Key, b.changes[i].prev)
	}
	b.changes = b.changes[:first]
}
