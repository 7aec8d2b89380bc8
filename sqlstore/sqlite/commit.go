package sqlite

import (
	"context"
	"fmt"
	"time"

	"petrel.dev/petrel/sqlstore"
)

// Bounds of one SQLite transaction; a single larger Commit still goes through whole.
const (
	maxBatchOps   = 4096
	maxBatchBytes = 8 << 20
)

// Commit implements sqlstore.Store. It waits for Run to be running.
func (db *DB) Commit(ctx context.Context, ops ...sqlstore.Op) ([]sqlstore.Revision, error) {
	if len(ops) == 0 {
		return nil, nil
	}
	if err := sqlstore.Check(ops); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	r := &request{ops: ops}
	if db.commitAlone(r) {
		return r.revs, r.err
	}
	if err := db.queue.do(ctx, r); err != nil {
		return nil, err
	}
	return r.revs, nil
}

// commitAlone commits r on the caller's goroutine when nobody else is committing, as when one client waits for each answer: the
// way to the committer and back costs two goroutines that have to wake up. As soon as requests meet, it reports false, and
// they go to the committer together.
func (db *DB) commitAlone(r *request) bool {
	if !db.quiet.Load() || !db.work.TryLock() {
		return false
	}
	defer db.work.Unlock()
	db.round.Begin()
	defer db.round.End()
	if !db.quiet.Load() || db.queue.busy() || db.owed || db.mem.Room.Frugal {
		return false
	}
	defer func() {
		// Who called may survive a panic; a store that has stopped half-way must not, so it is Run's too.
		if p := recover(); p != nil {
			db.quiet.Store(false)
			db.broken = p
			db.queue.wake()
			panic(p)
		}
	}()
	db.settle([]*request{r})
	if db.upkeepDue(time.Now()) {
		db.owed = true // to the committer: this answer does not wait for it, the next commit does
		db.queue.wake()
	}
	db.updateHealth()
	return true
}

// upkeepDue reports whether upkeep, or a store that has run short of room, has something to do. db.work is held.
func (db *DB) upkeepDue(now time.Time) bool {
	db.mem.Mark(now)
	to, _ := db.mem.Due(now, db.file.compacted)
	return to != db.file.compacted || db.file.walFrames >= db.file.checkpointAt || now.Sub(db.markedAt) >= markEvery || db.mem.Room.Frugal
}

func (db *DB) commitLoop(ctx context.Context) error {
	db.work.Lock()
	db.begin(time.Now())
	frugal := db.mem.Room.Frugal
	db.work.Unlock()
	db.quiet.Store(true)
	defer db.quiesce()
	for {
		var retry <-chan time.Time
		if frugal {
			retry = time.After(tendEvery)
		}
		select {
		case <-db.queue.signal:
			frugal = db.turn()
		case <-retry:
			frugal = db.retend()
		case <-ctx.Done():
			return nil
		case <-db.closing.Done():
			return nil
		}
	}
}

// turn does what waits for the committer: the oldest requests, or upkeep that a commit on its caller's goroutine has made due.
// It reports whether the store is short of room.
func (db *DB) turn() (frugal bool) {
	db.work.Lock()
	defer db.work.Unlock()
	db.round.Begin()
	defer db.round.End()
	if db.broken != nil {
		panic(db.broken)
	}
	if db.owed {
		db.owed = false
		db.upkeep(time.Now())
		db.tend(time.Now())
	}
	if batch := db.queue.take(maxBatchOps, maxBatchBytes); len(batch) > 0 {
		db.quiet.Store(len(batch) == 1)
		db.commitBatch(batch)
	}
	return db.mem.Room.Frugal
}

// retend tries again what a store that is short of room waits for, and reports whether it still is.
func (db *DB) retend() (frugal bool) {
	db.work.Lock()
	defer db.work.Unlock()
	db.round.Begin()
	defer db.round.End()
	db.tend(time.Now())
	return db.mem.Room.Frugal
}

// Stuck returns an error when one round of commits, or the upkeep behind it, has gone on for longer than limit, as on a disk that does
// not answer.
func (db *DB) Stuck(limit time.Duration) error { return db.round.Stuck(limit) }

// quiesce has all commits go to the queue, where they wait for the next Run, and returns when none is under way.
func (db *DB) quiesce() {
	db.quiet.Store(false)
	db.work.Lock()
	//lint:ignore SA2001 waits for who holds it, and needs it for nothing
	db.work.Unlock()
}

// commitBatch settles each request of the batch, then does the upkeep that the writes have made due: no answer
// waits for that. A conflict is answered only when what it conflicts with, which may be of the same batch, can be read.
func (db *DB) commitBatch(batch []*request) {
	var commits []*request
	for _, r := range batch {
		if len(r.ops) > 0 {
			commits = append(commits, r)
		}
	}
	if db.mem.Room.Frugal {
		db.recover()
	}
	before := db.rev()
	db.settle(commits)
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
	db.updateHealth()
}

// settle commits the requests, or each that can be, and says so in them.
func (db *DB) settle(commits []*request) {
	switch err := db.try(commits); {
	case isFull(err):
		db.rescue(commits)
	case err != nil:
		// Those with a conflict too: what they conflict with may be what could not be written.
		for _, r := range commits {
			r.revs, r.err = nil, err
		}
	}
}

// try commits the requests in one transaction, leaving out those whose preconditions fail. When it returns an error,
// nothing of any of them was committed.
func (db *DB) try(commits []*request) error {
	b := db.mem.Begin()
	for _, r := range commits {
		r.revs, r.err = b.Add(r.ops)
	}
	if len(b.Changes()) == 0 {
		return nil
	}
	if err := db.file.write(b.Changes()); err != nil {
		b.Undo()
		return fmt.Errorf("commit to %s: %w", db.cfg.Path, err)
	}
	b.Publish()
	return nil
}
