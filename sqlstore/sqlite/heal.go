package sqlite

import (
	"database/sql/driver"
	"errors"
	"fmt"
	"time"
)

// tendEvery is how often a store whose disk is full looks whether that is still so. A healthy store has no timer.
const tendEvery = 10 * time.Second

// Health returns the *sqlstore.FullError that says why the store takes only what does not make it grow, or nil.
func (db *DB) Health() error {
	if e := db.health.Load(); e != nil {
		return e
	}
	return nil
}

// Usage returns what the store's objects take in memory, in bytes, and what they may take.
func (db *DB) Usage() (living, limit int64) { return db.living.Load(), db.mem.Room.Limit() }

// updateHealth brings Health up to date, and logs when it has changed. The committer calls it after each batch.
func (db *DB) updateHealth() {
	db.living.Store(db.mem.Room.Living())
	now := db.mem.Room.Full()
	before := db.health.Swap(now)
	if (before == nil) == (now == nil) {
		return
	}
	if now != nil {
		db.cfg.Log.Error("store is full", "error", now)
	} else {
		db.cfg.Log.Info("store takes everything again", "bytes", db.mem.Room.Living())
	}
	if db.cfg.OnHealth != nil {
		db.cfg.OnHealth(db.Health())
	}
}

// heal makes room after the disk was full: it gives the reserve up, forgets all history, gives back the log's room, and
// takes a reserve again. What the store needs, it then has; what others have filled, only they can free.
func (db *DB) heal(now time.Time) {
	db.mem.Room.Frugal = true
	db.healed = now
	db.reserve.giveUp()
	db.makeRoom()
	db.recover()
}

// makeRoom forgets all history and gives the log's room back.
func (db *DB) makeRoom() {
	if err := db.compactTo(db.rev()); err != nil {
		db.cfg.Log.Warn("history could not be given up for room", "error", err)
	}
	if err := db.file.truncateWAL(); err != nil {
		db.cfg.Log.Debug("room of the WAL could not be given back", "error", err)
	}
}

// recover ends the frugal state when there is room for a reserve and something beside it.
func (db *DB) recover() {
	unused, err := queryInt(db.file.conn, "PRAGMA freelist_count")
	db.reserve.pages = err == nil && unused*pageSize >= db.reserve.size
	if db.reserve.make() {
		db.mem.Room.Frugal = false
	}
	db.file.checkpointAt = checkpointFrames
	if !db.reserve.whole() { // the log must not grow into the last room
		db.file.checkpointAt = min(checkpointFrames, int(db.reserve.margin()/2/pageSize))
	}
}

// tend is what a full store does by its timer, and after batches. A compaction or a checkpoint that the disk refused is
// tried again.
func (db *DB) tend(now time.Time) {
	if !db.mem.Room.Frugal {
		return
	}
	left := db.file.compacted < db.rev() || db.file.walFrames > 0 // the reserve is not given up for nothing
	if db.recover(); db.mem.Room.Frugal && left && now.Sub(db.healed) >= tendEvery/2 {
		db.heal(now)
	}
	db.updateHealth()
}

// begin is the upkeep at the start of Run: what an earlier life, or an older Petrel, has left undone. It writes nothing when
// there is nothing to do.
func (db *DB) begin(now time.Time) {
	if db.mem.Room.Frugal = true; db.reserve.whole() {
		db.mem.Room.Frugal = false // the usual case: nothing is looked at, nothing written
	} else if db.recover(); db.mem.Room.Frugal {
		db.heal(now)
	}
	if _, over := db.mem.Due(now, db.file.compacted); over {
		db.upkeep(now)
	}
	db.updateHealth()
}

// rescue settles requests whose common transaction the disk has refused: it heals, and then tries each alone, so that a
// large one does not cost a small one its place. What frees space may use up the reserve for it.
func (db *DB) rescue(commits []*request) {
	db.heal(time.Now())
	for _, r := range commits {
		err := db.try([]*request{r})
		if isFull(err) {
			db.mem.Room.Frugal = true
			err = db.try([]*request{r}) // refused by room unless it frees
		}
		if isFull(err) {
			db.reserve.giveUp()
			err = db.try([]*request{r})
		}
		if isFull(err) {
			err = db.mem.Room.NoSpace()
		}
		if err != nil {
			r.revs, r.err = nil, err
		}
	}
	db.recover()
}

// truncateWAL moves everything to the database and gives the WAL's room back to the disk. It waits for no reader.
func (f *file) truncateWAL() error {
	if err := f.exec("PRAGMA busy_timeout = 0"); err != nil {
		return err
	}
	busy := int64(0)
	err := query(f.conn, "PRAGMA wal_checkpoint(TRUNCATE)", func(v []driver.Value) error {
		busy, _ = v[0].(int64)
		return nil
	})
	if err == nil && busy != 0 {
		err = errors.New("a reader is in the way")
	}
	if err == nil {
		f.walFrames = 0
	}
	if e := f.exec(fmt.Sprint("PRAGMA busy_timeout = ", busyTimeout)); err == nil {
		err = e
	}
	return err
}

// isFull reports whether SQLite failed for want of space on the disk.
func isFull(err error) bool {
	const codeFull = 13
	return sqliteCode(err) == codeFull
}
