package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"sync"
	"time"

	"petrel.dev/petrel/sqlstore"
	"petrel.dev/petrel/sqlstore/replica"
)

// reads is the replica.Source of history that has left memory: a second, read-only way into the file which never
// waits for the committer. It is opened when first needed; most stores never do.
type reads struct {
	path string

	mu     sync.Mutex
	db     *sql.DB
	closed bool
}

func newReads(path string) *reads { return &reads{path: path} }

func (r *reads) open() (*sql.DB, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, sqlstore.ErrClosed
	}
	if r.db == nil {
		db, err := sql.Open("sqlite", dsn(r.path, url.Values{"_pragma": {"busy_timeout(5000)", "query_only(1)", "cache_size(-512)"}}))
		if err != nil {
			return nil, err
		}
		db.SetMaxOpenConns(2)
		db.SetConnMaxIdleTime(time.Minute) // each costs memory
		r.db = db
	}
	return r.db, nil
}

func (r *reads) close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	if r.db == nil {
		return nil
	}
	return r.db.Close()
}

// Changes implements replica.Source.
func (r *reads) Changes(ctx context.Context, prefix string, from, upTo sqlstore.Revision, f func(*replica.Change) bool) error {
	db, err := r.open()
	if err != nil {
		return err
	}
	text := `SELECT l.rev, l.created, l.deleted, l.pos, l.key, l.value, l.crc, p.rev, p.created, p.value
		FROM log l LEFT JOIN log p ON p.rev = l.prev WHERE l.rev > ? AND l.rev <= ? AND l.key >= ?`
	args := []any{int64(from), int64(upTo), prefix}
	if end, ok := replica.PrefixEnd(prefix); ok {
		text += " AND l.key < ?"
		args = append(args, end)
	}
	rows, err := db.QueryContext(ctx, text+" ORDER BY l.rev", args...)
	if err != nil {
		return fmt.Errorf("read history after revision %d: %w", from, err)
	}
	defer rows.Close()
	for rows.Next() {
		e, c := &sqlstore.Entry{}, &replica.Change{}
		var prevRev, prevCreated sql.NullInt64
		var prevValue []byte
		var crc int64
		if err := rows.Scan(&e.Rev, &e.Created, &c.Deleted, &c.Pos, &e.Key, &e.Value, &crc, &prevRev, &prevCreated, &prevValue); err != nil {
			return fmt.Errorf("read history after revision %d: %w", from, err)
		}
		if err := verify(e, crc); err != nil {
			return fmt.Errorf("read history after revision %d: %w", from, err)
		}
		c.Entry = e
		if prevRev.Valid {
			c.Prev = &sqlstore.Entry{Key: e.Key, Value: prevValue, Rev: sqlstore.Revision(prevRev.Int64), Created: sqlstore.Revision(prevCreated.Int64)}
		}
		if !f(c) {
			return nil
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("read history after revision %d: %w", from, err)
	}
	return nil
}

// Boundary implements replica.Source.
func (r *reads) Boundary(ctx context.Context, rev, cur sqlstore.Revision) (sqlstore.Revision, error) {
	if rev >= cur {
		return cur, nil
	}
	db, err := r.open()
	if err != nil {
		return 0, err
	}
	var next sql.NullInt64
	err = db.QueryRowContext(ctx, "SELECT rev FROM log WHERE rev > ? AND rev <= ? AND pos = 0 ORDER BY rev LIMIT 1", int64(rev), int64(cur)).Scan(&next)
	switch {
	case err == sql.ErrNoRows:
		return cur, nil
	case err != nil:
		return 0, fmt.Errorf("read history after revision %d: %w", rev, err)
	}
	return sqlstore.Revision(next.Int64) - 1, nil
}
