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
	r := &request{ops: ops}
	if err := db.queue.do(ctx, r); err != nil {
		return nil, err
	}
	return r.revs, nil
}

func (db *DB) commitLoop(ctx context.Context) error {
	db.begin(time.Now())
	for {
		var retry <-chan time.Time
		if db.mem.Room.Frugal {
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
	db.updateHealth()
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
