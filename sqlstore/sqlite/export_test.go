package sqlite

import (
	"database/sql/driver"
	"fmt"
	"strings"

	"petrel.dev/petrel/sqlstore"
)

// Compacted returns the oldest revision that can still be listed, or watched from.
func (db *DB) Compacted() sqlstore.Revision { return db.mem.Compacted() }

// LimitMemory has a store keep at most n changes in memory, so that older ones are read from the file.
func LimitMemory(cfg Config, n int) Config {
	if cfg.ring = n; n == 0 {
		cfg.ring = -1
	}
	return cfg
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

// Quiet reports whether a Commit may run on its caller's goroutine.
func (db *DB) Quiet() bool { return db.quiet.Load() }

// Waiting returns how many requests wait for the committer.
func (db *DB) Waiting() int {
	db.queue.mu.Lock()
	defer db.queue.mu.Unlock()
	return len(db.queue.waiting)
}

// DiskSpace is what is free in dir, and how large its file system is.
var DiskSpace = diskSpace
