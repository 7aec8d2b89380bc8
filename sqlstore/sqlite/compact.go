package sqlite

import (
	"context"
	"database/sql/driver"
	"fmt"
	"time"

	"petrel.dev/petrel/sqlstore"
)

// compactStep is how many revisions one step of compaction goes, after a batch: a few pages now and then instead of a long
// stop.
const compactStep = 1024

// Compact deletes history up to and including revision to: what was superseded or deleted by then. It waits for Run like
// Commit. Compaction happens by itself; this is for operators and tests.
func (db *DB) Compact(ctx context.Context, to sqlstore.Revision) error {
	if cur := db.rev(); to > cur {
		return &sqlstore.FutureError{Asked: to, Current: cur}
	}
	return db.queue.do(ctx, &request{compact: to})
}

// upkeep follows a batch of writes; an idle store has none.
func (db *DB) upkeep(now time.Time) {
	if db.mem.Room.Frugal { // what was deleted makes room at once
		db.makeRoom()
		return
	}
	err := db.forgetDue(now)
	if err != nil {
		db.cfg.Log.Warn("store compaction failed, history is kept for now", "error", err)
	}
	if isFull(err) {
		db.heal(now)
	}
	err = db.file.checkpoint()
	if err != nil {
		db.cfg.Log.Warn("store checkpoint failed, the WAL grows until one succeeds", "error", err)
	}
	if isFull(err) {
		db.heal(now)
	}
	db.mark(now)
}

// forgetDue takes one step of compaction when enough is due; more while history has more bytes than it may.
func (db *DB) forgetDue(now time.Time) error {
	db.mem.Mark(now)
	for {
		from := db.file.compacted
		to, over := db.mem.Due(now, from)
		if to == from {
			return nil
		}
		to = min(to, from+compactStep)
		if err := db.compactStep(from, to); err != nil {
			return fmt.Errorf("compact to revision %d: %w", to, err)
		}
		if !over {
			return nil
		}
	}
}

func (db *DB) compactTo(to sqlstore.Revision) error {
	for {
		from := db.file.compacted
		if from >= to {
			return nil
		}
		if err := db.compactStep(from, min(to, from+compactStep)); err != nil {
			return fmt.Errorf("compact to revision %d: %w", to, err)
		}
	}
}

// compactStep moves the horizon and deletes what it has passed. The horizon moves first: readers check it after they
// have read. Should the deletion fail, the next step tries again.
func (db *DB) compactStep(from, to sqlstore.Revision) error {
	db.mem.Forget(to)
	return db.file.compact(from, to)
}

// compact deletes what revisions in (from, to] superseded, and those of them that are deletions.
func (f *file) compact(from, to sqlstore.Revision) error {
	var dead []int64
	// The columns come first in the row: values are not even read.
	err := query(f.conn, "SELECT rev, prev, deleted FROM log WHERE rev > ? AND rev <= ?", func(v []driver.Value) error {
		rev, prev, deleted := v[0].(int64), v[1].(int64), v[2].(int64)
		if prev != 0 {
			dead = append(dead, prev)
		}
		if deleted != 0 {
			dead = append(dead, rev)
		}
		return nil
	}, int64(from), int64(to))
	if err != nil {
		return err
	}
	if len(dead) == 0 { // only creations: what is on the disk may stay behind
		f.compacted = to
		return nil
	}
	err = f.transaction(func() error {
		del, err := f.conn.Prepare("DELETE FROM log WHERE rev = ?")
		if err != nil {
			return err
		}
		defer del.Close()
		args := named(int64(0))
		for _, rev := range dead {
			args[0].Value = rev
			if _, err := del.(driver.StmtExecContext).ExecContext(context.Background(), args); err != nil {
				return err
			}
		}
		f.walFrames += len(dead)
		return f.exec("UPDATE meta SET value = ? WHERE name = 'compacted'", int64(to))
	})
	if err == nil {
		f.compacted = to
	}
	return err
}
