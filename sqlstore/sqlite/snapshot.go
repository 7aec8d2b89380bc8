package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"os"
	"time"

	"petrel.dev/petrel/internal/durable"
	"petrel.dev/petrel/sqlstore"
	"petrel.dev/petrel/sqlstore/replica"
)

// Effort of writing a snapshot: after each portion of so many bytes it is made durable, so that no commit waits behind a long
// queue of the disk's, and nothing is written for pauses times as long as that took.
const (
	snapshotPortion = 512 << 10
	snapshotPauses  = 3
)

// writeSnapshot makes path, a file that is empty or does not exist yet, a store of exactly what scan yields, as of revision rev: without history,
// and without the name of one, so that a store that is opened from it begins a new one. paced leaves the disk to others most of the time.
func writeSnapshot(ctx context.Context, path string, rev sqlstore.Revision, paced bool, scan func(yield func(*sqlstore.Entry) bool)) (err error) {
	if err := createPrivate(path); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(path)
		}
	}()
	conn, err := openConn(path)
	if err != nil {
		return err
	}
	w := &snapshot{ctx: ctx, path: path, file: &file{conn: conn}, paced: paced}
	return errors.Join(w.write(rev, scan), conn.Close(), syncFile(path))
}

// snapshot is one that is being written.
type snapshot struct {
	ctx    context.Context
	path   string
	file   *file
	insert driver.StmtExecContext
	paced  bool
	bytes  int // since the last portion
	began  time.Time
}

func (w *snapshot) write(rev sqlstore.Revision, scan func(yield func(*sqlstore.Entry) bool)) error {
	for _, text := range []string{
		fmt.Sprint("PRAGMA page_size = ", pageSize),
		// Nobody sees the file before it is whole: it needs no journal, and is synced by hand.
		"PRAGMA journal_mode = OFF", "PRAGMA synchronous = OFF", "PRAGMA cache_size = -1024",
	} {
		if err := w.file.exec(text); err != nil {
			return err
		}
	}
	if err := w.file.migrate(); err != nil {
		return err
	}
	if err := w.file.exec("UPDATE meta SET value = ? WHERE name = 'compacted'", int64(rev)); err != nil {
		return err
	}
	stmt, err := w.file.conn.Prepare(insertRow)
	if err != nil {
		return err
	}
	defer stmt.Close()
	w.insert = stmt.(driver.StmtExecContext)
	if err := w.file.exec("BEGIN"); err != nil {
		return err
	}
	w.began = time.Now()
	scan(func(e *sqlstore.Entry) bool {
		err = w.add(e)
		return err == nil
	})
	if err != nil {
		return err
	}
	return w.file.exec("COMMIT")
}

func (w *snapshot) add(e *sqlstore.Entry) error {
	row := rowValues(&replica.Change{Entry: e})
	if _, err := w.insert.ExecContext(context.Background(), named(row[:]...)); err != nil {
		return err
	}
	if w.bytes += len(e.Key) + len(e.Value); w.bytes < snapshotPortion {
		return nil
	}
	w.bytes = 0
	if err := w.file.exec("COMMIT"); err != nil {
		return err
	}
	if err := syncFile(w.path); err != nil {
		return err
	}
	if w.paced {
		select {
		case <-w.ctx.Done():
		case <-time.After(snapshotPauses * time.Since(w.began)):
		}
	}
	if err := w.ctx.Err(); err != nil {
		return err
	}
	w.began = time.Now()
	return w.file.exec("BEGIN")
}

// Backup writes a snapshot of the store, as of one commit boundary, to path while everything goes on. An existing file
// is replaced only by a complete, durable one. The snapshot holds all objects and no history, is itself a store that Open
// takes, and begins a new history then. It is written from memory, with pauses: it keeps no commit waiting. Its file has the
// time of its contents, not of its end. Backup returns its revision.
func (db *DB) Backup(ctx context.Context, path string) (sqlstore.Revision, error) {
	begun, part := time.Now(), path+PartSuffix
	rev, err := db.writePart(ctx, part)
	if err == nil {
		err = os.Chtimes(part, begun, begun)
	}
	if err == nil {
		err = durable.Rename(part, path)
	}
	if err != nil {
		_ = os.Remove(part)
		return 0, fmt.Errorf("backup to %s: %w", path, err)
	}
	return rev, nil
}

// writePart writes a snapshot to path. The file is there before the snapshot is taken: a rotation of keys that finds no such file knows that a
// later backup has what the rotation has stored.
func (db *DB) writePart(ctx context.Context, path string) (sqlstore.Revision, error) {
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return 0, err
	}
	if err := createPrivate(path); err != nil {
		return 0, err
	}
	rev, scan := db.mem.Snapshot()
	return rev, writeSnapshot(ctx, path, rev, true, scan)
}
