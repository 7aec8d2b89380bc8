package sqlstore

import (
	"database/sql/driver"
	"fmt"
	"strings"
)

// Compacted is the oldest revision that can still be listed, or watched from.
func (db *DB) Compacted() Revision { return db.history.oldest() }

// LimitMemory keeps at most n changes in memory, so that older ones are read from the file.
func (db *DB) LimitMemory(n int) {
	db.history.mu.Lock()
	defer db.history.mu.Unlock()
	db.history.maxRing = n
}

// Exec runs SQL on the committer's connection: between Open and Run only.
func (db *DB) Exec(text string) error { return db.file.exec(text) }

// Query runs SQL on the committer's connection, as Exec does, and returns one line for each row, columns by |.
func (db *DB) Query(text string) (out []string, err error) {
	err = query(db.file.conn, text, func(v []driver.Value) error {
		row := make([]string, len(v))
		for i := range v {
			row[i] = fmt.Sprint(v[i])
		}
		out = append(out, strings.Join(row, "|"))
		return nil
	})
	return out, err
}

// Waiting is how many requests wait for the committer.
func (db *DB) Waiting() int {
	db.queue.mu.Lock()
	defer db.queue.mu.Unlock()
	return len(db.queue.waiting)
}

// DiskSpace is what is free in dir, and how large its file system is.
var DiskSpace = diskSpace
