package sqlite

import (
	"bufio"
	"cmp"
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"petrel.dev/petrel/internal/durable"
	"petrel.dev/petrel/sqlstore"
)

// badRow is one that could not be read as it was written.
type badRow struct {
	key    string // "" when not even that is readable
	rev    sqlstore.Revision
	reason string
	value  []byte            // what is there, for a person to look at
	back   sqlstore.Revision // the older revision of the key that is there instead, 0 when none is
}

// maxProbes bounds the revisions that salvage looks for one by one, behind damaged pages.
const maxProbes = 2_000_000

// salvage makes a store at cfg.Path of what can be read of the damaged one that was set aside, and writes a report beside
// that. What it made begins a new history.
func salvage(ctx context.Context, cfg Config, aside string) error {
	conn, err := openConn(aside)
	if err != nil {
		return fmt.Errorf("salvage %s: %w", aside, err)
	}
	s := &salvager{conn: conn, best: map[string]*salvaged{}}
	// Otherwise SQLite does not look into a file that is shorter than it says of itself.
	if err := (&file{conn: conn}).exec("PRAGMA writable_schema = ON"); err != nil {
		return errors.Join(fmt.Errorf("salvage %s: %w", aside, err), conn.Close())
	}
	if m, ok := readMark(cfg.Path); ok {
		s.last = m.Revision
	}
	err = errors.Join(s.read(ctx), conn.Close())
	if err != nil {
		return fmt.Errorf("salvage %s: %w; only a backup helps here", aside, err)
	}
	entries := s.living()
	if len(entries) == 0 {
		return fmt.Errorf("salvage %s: nothing in it can be read; only a backup helps here", aside)
	}
	if err := s.report(aside + ".report"); err != nil {
		return fmt.Errorf("salvage %s: %w", aside, err)
	}
	part := cfg.Path + ".salvage"
	if err := os.Remove(part); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("salvage %s: %w", aside, err)
	}
	err = writeSnapshot(ctx, part, s.last, false, func(yield func(*sqlstore.Entry) bool) {
		for _, e := range entries {
			if !yield(e) {
				return
			}
		}
	})
	if err == nil {
		err = durable.Rename(part, cfg.Path)
	}
	if err != nil {
		return fmt.Errorf("salvage %s: %w", aside, err)
	}
	cfg.Log.Error("store was salvaged", "path", cfg.Path, "from", aside, "objects", len(entries), "bad", len(s.bad), "report", aside+".report")
	logBad(cfg, s.bad)
	return nil
}

// logBad names the first rows that were set aside.
func logBad(cfg Config, bad []badRow) {
	const most = 50
	for _, b := range bad[:min(len(bad), most)] {
		cfg.Log.Error("row of the store was set aside", "key", b.key, "revision", int64(b.rev), "reason", b.reason, "nowAtRevision", int64(b.back))
	}
}

// salvager reads what it can of a damaged store.
type salvager struct {
	conn   driverConn
	best   map[string]*salvaged // the newest readable row of each key
	bad    []badRow
	last   sqlstore.Revision // the newest revision known of
	probes int
}

type salvaged struct {
	entry   *sqlstore.Entry
	deleted bool
}

const salvageColumns = "SELECT rev, created, deleted, crc, key, value FROM log WHERE "

// read goes through the log. Behind a page that cannot be read it looks for the next revision that can.
func (s *salvager) read(ctx context.Context) error {
	if newest, err := queryInt(s.conn, "SELECT max(rev) FROM log"); err == nil {
		s.last = max(s.last, sqlstore.Revision(newest))
	}
	if compacted, err := queryInt(s.conn, "SELECT value FROM meta WHERE name = 'compacted'"); err == nil {
		s.last = max(s.last, sqlstore.Revision(compacted))
	}
	next := sqlstore.Revision(1)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		at, err := s.scan(next)
		if err == nil {
			return nil
		}
		if code := sqliteCode(err); code == codeNotADB || code == 1 { // no database, no such table
			return err
		}
		if next = s.resume(at+1, err); next == 0 {
			return nil
		}
	}
}

// scan takes in all rows from a revision on, and returns the last that it has read.
func (s *salvager) scan(from sqlstore.Revision) (last sqlstore.Revision, err error) {
	last = from - 1
	err = query(s.conn, salvageColumns+"rev >= ? ORDER BY rev", func(v []driver.Value) error {
		last = s.take(v)
		return nil
	}, int64(from))
	return last, err
}

// resume returns the first revision from rev on whose place can be read, 0 when there is none.
func (s *salvager) resume(rev sqlstore.Revision, cause error) sqlstore.Revision {
	begin := rev
	for ; rev <= s.last && s.probes < maxProbes; rev++ {
		s.probes++
		err := query(s.conn, salvageColumns+"rev = ?", func([]driver.Value) error { return nil }, int64(rev))
		if err == nil {
			break
		}
		b := badRow{rev: rev, reason: err.Error()}
		if query(s.conn, "SELECT key FROM log WHERE rev = ?", func(v []driver.Value) error {
			b.key, _ = v[0].(string)
			return nil
		}, int64(rev)) == nil && b.key != "" {
			s.bad = append(s.bad, b)
			begin = rev + 1
		}
	}
	if rev > begin {
		s.bad = append(s.bad, badRow{rev: begin, reason: fmt.Sprintf("revisions %d to %d are on pages that cannot be read: %v", begin, rev-1, cause)})
	}
	if rev > s.last || s.probes >= maxProbes {
		return 0
	}
	return rev
}

// take keeps one row, if it is what was written.
func (s *salvager) take(v []driver.Value) sqlstore.Revision {
	e := scanEntry(v[0], v[1], v[4], v[5])
	deleted, _ := v[2].(int64)
	crc, _ := v[3].(int64)
	s.last = max(s.last, e.Rev)
	if err := verify(e, crc); err != nil {
		s.bad = append(s.bad, badRow{key: e.Key, rev: e.Rev, reason: "its bytes are not those that were written", value: e.Value})
		return e.Rev
	}
	if old := s.best[e.Key]; old == nil || old.entry.Rev < e.Rev {
		s.best[e.Key] = &salvaged{e, deleted != 0}
	}
	return e.Rev
}

// living returns what exists, in order of revisions as a store has it, and notes what the bad rows' keys have become.
func (s *salvager) living() (out []*sqlstore.Entry) {
	for i, b := range s.bad {
		if best := s.best[b.key]; best != nil && !best.deleted {
			s.bad[i].back = best.entry.Rev
		}
	}
	for _, b := range s.best {
		if !b.deleted {
			out = append(out, b.entry)
		}
	}
	slices.SortFunc(out, func(a, b *sqlstore.Entry) int { return cmp.Compare(a.Rev, b.Rev) })
	return out
}

func (s *salvager) report(path string) error { return writeReport(path, s.bad) }

// writeReport names what was set aside, one line each, with what can be read of it.
func writeReport(path string, bad []badRow) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	fmt.Fprintf(w, "# %s: rows of the store that could not be read as they were written\n", time.Now().UTC().Format(time.RFC3339))
	for _, b := range bad {
		became := "is lost"
		switch {
		case b.key == "":
			became = "whose they are is not known; objects of theirs are lost, or went back to older revisions"
		case b.back > b.rev:
			became = "was superseded, nothing is lost"
		case b.back != 0:
			became = fmt.Sprintf("went back to revision %d", b.back)
		}
		fmt.Fprintf(w, "revision %d key %q: %s; %s; bytes %q\n", b.rev, b.key, b.reason, became, b.value)
	}
	return errors.Join(w.Flush(), f.Sync(), f.Close(), durable.SyncDir(filepath.Dir(path)))
}

// setRowsAside takes expendable rows that are bad out of the file, which is otherwise sound. Revisions stay dense: one that
// history still needs becomes a deletion.
func (f *file) setRowsAside(cfg Config, bad []badRow, compacted sqlstore.Revision) error {
	report := cfg.Path + ".report"
	if err := writeReport(report, bad); err != nil {
		return err
	}
	cfg.Log.Error("bad rows of the store were set aside", "path", cfg.Path, "rows", len(bad), "report", report)
	logBad(cfg, bad)
	err := f.exec("BEGIN IMMEDIATE")
	for _, b := range bad {
		switch {
		case err != nil:
		case b.rev <= compacted:
			err = f.exec("DELETE FROM log WHERE rev = ?", int64(b.rev))
		default:
			err = f.exec("UPDATE log SET deleted = 1, value = NULL, crc = ? WHERE rev = ?", int64(int32(checksum(b.rev, b.key, nil))), int64(b.rev))
		}
	}
	if err == nil {
		err = f.exec("DELETE FROM history") // what a revision meant has changed
	}
	if err == nil {
		err = f.exec("COMMIT")
	}
	if err != nil {
		_ = f.exec("ROLLBACK")
	}
	return err
}

func hasAnyPrefix(key string, prefixes []string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(key, p) })
}
