package sqlite

import (
	"crypto/rand"
	"database/sql/driver"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"petrel.dev/petrel/internal/durable"
	"petrel.dev/petrel/sqlstore"
)

// History names the sequence of revisions that this store belongs to: a random name that changes whenever what is in the
// file may have gone back in time. Revisions may be compared within one history only. It changes when the store is made,
// when a backup is opened as the store, when a start has set damaged rows aside, and when an older copy of the file was put in
// its place, as far as that can be seen:
//
//   - The file is behind the revision that the mark beside it (PATH.history) has recorded, or is not the file that it was
//     written for (another inode), or the mark is missing: seen, the history is new.
//   - A whole disk image was put back, or file and mark together by something that keeps inodes: not seen. Who has seen a
//     higher revision of the same history than the store has now knows it all the same.
//
// The mark follows the store at most each markEvery and when the store is closed. So an older copy goes unseen when it is put
// in place by writing into the same file after a crash, and is no older than the last mark.
func (db *DB) History() string { return db.id }

// markEvery is the least time between two writings of the mark beside the file while the store is written to.
const markEvery = time.Minute

// maxMark bounds the mark's file in bytes.
const maxMark = 4096

// seen is the mark beside the file: what the store was when it was last recorded.
type seen struct {
	History  string            `json:"history"`
	Revision sqlstore.Revision `json:"revision"`
	// File is the file's inode number, 0 where there is no such thing.
	File uint64 `json:"file"`
}

func newHistoryID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

func markPath(path string) string { return path + ".history" }

// readMark returns the mark; ok is false when there is none that can be read.
func readMark(path string) (m seen, ok bool) {
	f, err := os.Open(markPath(path))
	if err != nil {
		return seen{}, false
	}
	defer f.Close()
	if err := json.NewDecoder(io.LimitReader(f, maxMark)).Decode(&m); err != nil {
		return seen{}, false
	}
	return m, true
}

// writeMark replaces the mark; a power cut leaves the old or the new one.
func writeMark(path string, m seen) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return durable.WriteFile(markPath(path), append(b, '\n'), 0o600)
}

// identify finds the name of the file's history, or gives it a new one and says why. It never fails: a name that cannot be
// written down (a full disk) holds until the next start, which makes another.
func identify(cfg Config, f *file, rev sqlstore.Revision) string {
	id := f.historyID()
	mark, marked := readMark(cfg.Path)
	now := seen{History: id, Revision: rev, File: inode(cfg.Path)}
	reason := ""
	switch {
	case id == "":
		reason = "it is new, or was a backup"
	case !marked:
		reason = "there is no mark beside the file"
	case mark.History != id:
		reason = "the mark beside the file is of another history"
	case mark.File != now.File:
		reason = "it is not the file that the mark was written for"
	case rev < mark.Revision:
		reason = "it is older than the mark beside the file"
	case mark == now:
		return id
	}
	if reason != "" {
		now.History = newHistoryID()
		cfg.Log.Info("store begins a new history", "path", cfg.Path, "history", now.History, "before", id, "revision", int64(rev),
			"marked", int64(mark.Revision), "reason", reason)
		if err := f.setHistoryID(now.History); err != nil {
			cfg.Log.Warn("history of the store could not be written down, the next start begins another", "error", err)
			return now.History
		}
		// Into the database itself, before the mark says so: see dropStaleWAL.
		if err := f.truncateWAL(); err != nil {
			cfg.Log.Warn("history of the store is not yet in its file, the next start may begin another", "error", err)
			return now.History
		}
	}
	if err := writeMark(cfg.Path, now); err != nil {
		cfg.Log.Warn("mark of the store's history could not be written, the next start may begin a new history", "error", err)
	}
	return now.History
}

// historyID returns the name in the file, "" when the file has none.
func (f *file) historyID() (id string) {
	_ = query(f.conn, "SELECT id FROM history", func(v []driver.Value) error {
		id, _ = v[0].(string)
		return nil
	})
	return id
}

// setHistoryID names the file's history.
func (f *file) setHistoryID(id string) error {
	text := fmt.Sprintf("BEGIN IMMEDIATE; DELETE FROM history; INSERT INTO history VALUES ('%s'); COMMIT", id) // hexadecimal
	if err := f.exec(text); err != nil {
		_ = f.exec("ROLLBACK")
		return err
	}
	return nil
}

// mark records how far the store has come, when that is due.
func (db *DB) mark(now time.Time) {
	rev := db.rev()
	if now.Sub(db.markedAt) < markEvery || rev == db.marked {
		return
	}
	db.record(now, rev)
}

func (db *DB) record(now time.Time, rev sqlstore.Revision) {
	db.markedAt, db.marked = now, rev
	if err := writeMark(db.cfg.Path, seen{History: db.id, Revision: rev, File: inode(db.cfg.Path)}); err != nil {
		db.cfg.Log.Debug("mark of the store's history could not be written", "error", err)
	}
}
