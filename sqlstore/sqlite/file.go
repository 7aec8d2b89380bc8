package sqlite

import (
	"context"
	"database/sql/driver"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/url"
	"path/filepath"

	modernc "modernc.org/sqlite"

	"petrel.dev/petrel/sqlstore"
	"petrel.dev/petrel/sqlstore/replica"
)

// file is the committer's connection to the SQLite file.
type file struct {
	conn   driverConn
	begin  driver.StmtExecContext
	commit driver.StmtExecContext
	insert driver.StmtExecContext
	// walFrames estimates the pages in the WAL that no checkpoint has moved yet.
	walFrames int
	// checkpointAt is how many of them are moved by a checkpoint.
	checkpointAt int
	// compacted is the revision up to which compaction is done; the history's may be ahead of it.
	compacted sqlstore.Revision
}

// driverConn is a connection without database/sql around it: one goroutine uses it, and a lone commit is so short that
// the pool's bookkeeping would show.
type driverConn interface {
	driver.Conn
	driver.ExecerContext
	driver.QueryerContext
}

// pageSize of the file. A lone commit of 1 KiB appends to the WAL the pages that it changed, and the kernel writes 4 KiB
// blocks: with SQLite's usual 4 KiB pages that is four blocks a commit, with these it is less than two. docs/store.md has
// the measurements.
const pageSize = 512

// busyTimeout is how long SQLite waits for another's lock, in milliseconds.
const busyTimeout = 5000

// checkpointFrames is when the WAL is copied back: 2 MiB of pages.
const checkpointFrames = 2 << 20 / pageSize

func dsn(path string, params url.Values) string {
	abs, err := filepath.Abs(path)
	if err != nil {
		abs = path
	}
	return (&url.URL{Scheme: "file", OmitHost: true, Path: filepath.ToSlash(abs), RawQuery: params.Encode()}).String()
}

func openConn(path string) (driverConn, error) {
	c, err := (&modernc.Driver{}).Open(dsn(path, nil))
	if err != nil {
		return nil, err
	}
	return c.(driverConn), nil
}

// pragmas of the writing connection, in order.
var pragmas = []string{
	// Another process may hold a lock for a moment: sqlite3 in a shell.
	fmt.Sprint("PRAGMA busy_timeout = ", busyTimeout),
	// Works on an empty file only; see pageSize.
	fmt.Sprint("PRAGMA page_size = ", pageSize),
	// Readers and the writer do not block each other, and a commit is one sequential write.
	"PRAGMA journal_mode = WAL",
	// Each commit is on the disk before it is answered. NORMAL would lose the last ones with the power.
	"PRAGMA synchronous = FULL",
	// The committer checkpoints after it has answered, so that no answer waits for it.
	"PRAGMA wal_autocheckpoint = 0",
	// One huge transaction must not leave a huge WAL behind.
	fmt.Sprint("PRAGMA journal_size_limit = ", 8<<20),
	// The right edge of one table is all that is hot: 1 MiB.
	"PRAGMA cache_size = -1024",
	"PRAGMA temp_store = MEMORY",
	// Damage should be found, not believed.
	"PRAGMA cell_size_check = ON",
}

// insertRow adds a row of log; rowValues has its values.
const insertRow = `INSERT INTO log (rev, prev, created, deleted, pos, crc, key, value) VALUES (?,?,?,?,?,?,?,?)`

func openFile(ctx context.Context, cfg Config) (_ *file, _ *loaded, err error) {
	conn, err := openConn(cfg.Path)
	if err != nil {
		return nil, nil, err
	}
	f := &file{conn: conn, checkpointAt: checkpointFrames}
	defer func() {
		if err != nil {
			conn.Close()
		}
	}()
	for _, p := range pragmas {
		if err := f.exec(p); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", p, err)
		}
	}
	if err := quickCheck(conn); err != nil {
		return nil, nil, err
	}
	if err := f.migrate(); err != nil {
		return nil, nil, err
	}
	loaded, err := f.load(ctx, cfg.Expendable)
	if err != nil {
		return nil, nil, err
	}
	if len(loaded.bad) > 0 {
		if err := f.setRowsAside(cfg, loaded.bad, loaded.compacted); err != nil {
			return nil, nil, fmt.Errorf("set bad rows aside: %w", err)
		}
	}
	for text, stmt := range map[string]*driver.StmtExecContext{
		"BEGIN IMMEDIATE": &f.begin,
		"COMMIT":          &f.commit,
		insertRow:         &f.insert,
	} {
		s, err := conn.Prepare(text)
		if err != nil {
			return nil, nil, fmt.Errorf("prepare %q: %w", text, err)
		}
		*stmt = s.(driver.StmtExecContext)
	}
	f.compacted = loaded.compacted
	return f, loaded, nil
}

// close also ends the statements: with one left, SQLite would keep the file open.
func (f *file) close() error {
	for _, s := range []driver.StmtExecContext{f.begin, f.commit, f.insert} {
		_ = s.(driver.Stmt).Close() // repeats the error of its last use
	}
	return f.conn.Close()
}

func (f *file) exec(text string, args ...driver.Value) error {
	_, err := f.conn.ExecContext(context.Background(), text, named(args...))
	return err
}

func named(args ...driver.Value) []driver.NamedValue {
	out := make([]driver.NamedValue, len(args))
	for i, a := range args {
		out[i] = driver.NamedValue{Ordinal: i + 1, Value: a}
	}
	return out
}

// query calls row for each row; the values are good until it returns.
func query(conn driverConn, text string, row func([]driver.Value) error, args ...driver.Value) error {
	rows, err := conn.QueryContext(context.Background(), text, named(args...))
	if err != nil {
		return err
	}
	defer rows.Close()
	vals := make([]driver.Value, len(rows.Columns()))
	for {
		switch err := rows.Next(vals); {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		}
		if err := row(vals); err != nil {
			return err
		}
	}
}

// queryInt returns the first column of the first row, 0 when there is none.
func queryInt(conn driverConn, text string, args ...driver.Value) (n int64, err error) {
	err = query(conn, text, func(v []driver.Value) error {
		n, _ = v[0].(int64)
		return nil
	}, args...)
	return n, err
}

// transaction runs do between BEGIN and COMMIT, and rolls back when anything fails.
func (f *file) transaction(do func() error) error {
	ctx := context.Background()
	if _, err := f.begin.ExecContext(ctx, nil); err != nil {
		return err
	}
	err := do()
	if err == nil {
		_, err = f.commit.ExecContext(ctx, nil)
	}
	if err != nil {
		// SQLite has rolled back by itself after some errors (a full disk); then this one fails and means nothing.
		_ = f.exec("ROLLBACK")
	}
	return err
}

// write makes one batch durable.
func (f *file) write(changes []*replica.Change) error {
	ctx, args, pages := context.Background(), named(make([]driver.Value, 8)...), 2
	err := f.transaction(func() error {
		for _, c := range changes {
			e := c.Entry
			for i, v := range rowValues(c) {
				args[i].Value = v
			}
			if _, err := f.insert.ExecContext(ctx, args); err != nil {
				return fmt.Errorf("write revision %d of %q: %w", e.Rev, e.Key, err)
			}
			pages += 1 + len(e.Value)/pageSize
		}
		return nil
	})
	f.walFrames += pages
	return err
}

// rowValues returns those of the change's row.
func rowValues(c *replica.Change) [8]driver.Value {
	e := c.Entry
	var prev sqlstore.Revision
	if c.Prev != nil {
		prev = c.Prev.Rev
	}
	var value driver.Value
	if e.Value != nil {
		value = e.Value
	}
	return [...]driver.Value{int64(e.Rev), int64(prev), int64(e.Created), flag(c.Deleted), int64(c.Pos),
		int64(int32(checksum(e.Rev, e.Key, e.Value))), e.Key, value}
}

func flag(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// checksum guards a row against what SQLite's own check does not see: wrong bytes inside a value, as tired flash returns.
func checksum(rev sqlstore.Revision, key string, value []byte) uint32 {
	var head [8]byte
	binary.BigEndian.PutUint64(head[:], uint64(rev))
	sum := crc32.Update(0, castagnoli, head[:])
	sum = crc32.Update(sum, castagnoli, []byte(key))
	return crc32.Update(sum, castagnoli, value)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checkpoint copies the WAL back when it has grown enough. It takes what it can get without waiting for readers (PASSIVE),
// and the rest the next time; the WAL starts over once all of it was copied.
func (f *file) checkpoint() error {
	if f.walFrames < f.checkpointAt {
		return nil
	}
	f.walFrames = 0
	return query(f.conn, "PRAGMA wal_checkpoint(PASSIVE)", func(v []driver.Value) error {
		inWAL, _ := v[1].(int64)
		moved, _ := v[2].(int64)
		// Not zero when a reader was in the way: try again after half the usual distance, not after each commit.
		f.walFrames = min(int(inWAL-moved), f.checkpointAt/2)
		return nil
	})
}

// sqliteCode returns SQLite's primary result code of err, 0 when it has none.
func sqliteCode(err error) int {
	var e *modernc.Error
	if errors.As(err, &e) {
		return e.Code() & 0xff
	}
	return 0
}
