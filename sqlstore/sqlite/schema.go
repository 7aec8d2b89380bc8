package sqlite

import (
	"context"
	"database/sql/driver"
	"fmt"

	"petrel.dev/petrel/sqlstore"
	"petrel.dev/petrel/sqlstore/replica"
)

// applicationID marks the file as Petrel's ("Ptrl"), so that no other SQLite file is taken for one.
const applicationID = 0x5074726c

// migrations[i] takes a file from schema version i to i+1. Append, never edit.
var migrations = []string{
	`
-- One row for each revision. Rows are only added, and deleted when they are superseded and older than the compacted revision.
-- There is no index on key: Petrel keeps one in memory, and here it would double what a commit writes.
CREATE TABLE log (
  rev     INTEGER PRIMARY KEY, -- dense; a gap exists at or before meta.compacted only
  prev    INTEGER NOT NULL,    -- the revision of the same key that this one superseded, 0 if none
  created INTEGER NOT NULL,    -- the revision that created the key after its last deletion
  deleted INTEGER NOT NULL,    -- 1: this revision deleted the key
  pos     INTEGER NOT NULL,    -- position within its transaction: 0 begins one
  crc     INTEGER NOT NULL,    -- CRC-32C of rev (8 bytes, big endian), key, value; as a signed number, which is shorter
  key     TEXT    NOT NULL,
  value   BLOB                 -- JSON; of a deletion the last state, if known
) STRICT;

CREATE TABLE meta (
  name  TEXT PRIMARY KEY,
  value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO meta VALUES ('compacted', 0); -- superseded rows up to this revision are gone

-- What exists now.
CREATE VIEW objects AS
  SELECT key, rev, created, CAST(value AS TEXT) AS value FROM log
  WHERE rev IN (SELECT max(rev) FROM log GROUP BY key) AND NOT deleted
  ORDER BY key;

-- What happened lately.
CREATE VIEW changes AS
  SELECT rev, CASE WHEN deleted THEN 'delete' WHEN created = rev THEN 'create' ELSE 'update' END AS what,
         key, CAST(value AS TEXT) AS value
  FROM log ORDER BY rev;
`,
	`
-- The random name of the sequence of revisions, one row; none in a backup, so that opening one begins a new history.
CREATE TABLE history (id TEXT NOT NULL) STRICT;
`,
}

// VersionError says that a newer Petrel has written the file. Nothing was changed.
type VersionError struct {
	Path        string
	Have, Known int
}

func (e *VersionError) Error() string {
	return fmt.Sprintf("store %s has schema version %d, this Petrel knows versions up to %d: run the newer Petrel, or restore a backup made by this one",
		e.Path, e.Have, e.Known)
}

// migrate brings the file to the newest schema, each step in a transaction of its own.
func (f *file) migrate() error {
	version, err := queryInt(f.conn, "PRAGMA user_version")
	if err != nil {
		return fmt.Errorf("read schema version: %w", err)
	}
	tables, err := queryInt(f.conn, "SELECT count(*) FROM sqlite_schema")
	if err != nil {
		return fmt.Errorf("read schema: %w", err)
	}
	app, err := queryInt(f.conn, "PRAGMA application_id")
	if err != nil {
		return fmt.Errorf("read application id: %w", err)
	}
	if app != applicationID && (tables > 0 || version > 0 || app != 0) {
		return fmt.Errorf("it is an SQLite file, but not a Petrel store: choose another path")
	}
	if int(version) > len(migrations) {
		return &VersionError{Have: int(version), Known: len(migrations)}
	}
	for v := int(version); v < len(migrations); v++ {
		step := fmt.Sprintf("BEGIN IMMEDIATE; %s; PRAGMA application_id = %d; PRAGMA user_version = %d; COMMIT", migrations[v], applicationID, v+1)
		if err := f.exec(step); err != nil {
			_ = f.exec("ROLLBACK")
			return fmt.Errorf("migrate from schema version %d: %w", v, err)
		}
	}
	return nil
}

// loaded is what the file held.
type loaded struct {
	index          *replica.Index
	rev, compacted sqlstore.Revision
	// living is what the entries take in memory, dead what superseded rows have; in bytes.
	living, dead int64
	// bad are expendable rows that do not match their checksums; they are not in index.
	bad []badRow
}

// load reads what exists now, and proves while doing so that values match their checksums and that no revision after the
// compacted one is missing. Superseded values are not read: a hub that stopped after a busy hour has more of them than
// objects, and should start as fast as any. They are checked when history is read.
//
// Bad rows of keys with one of the expendable prefixes are no damage, but are returned.
func (f *file) load(ctx context.Context, expendable []string) (*loaded, error) {
	compacted, err := queryInt(f.conn, "SELECT value FROM meta WHERE name = 'compacted'")
	if err != nil {
		return nil, fmt.Errorf("read compacted revision: %w", err)
	}
	l := &loaded{index: replica.NewIndex(), compacted: sqlstore.Revision(compacted), rev: sqlstore.Revision(compacted)}
	err = query(f.conn, "SELECT count(*), max(rev) FROM log WHERE rev > ?", func(v []driver.Value) error {
		last, _ := v[1].(int64) // NULL when there is none
		l.rev = max(l.rev, sqlstore.Revision(last))
		if kept := v[0].(int64); kept != int64(l.rev-l.compacted) {
			return &checkError{fmt.Sprintf("%d revisions from %d to %d are missing", int64(l.rev-l.compacted)-kept, l.compacted+1, l.rev)}
		}
		return nil
	}, compacted)
	if err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	err = query(f.conn, "SELECT count(*), sum(octet_length(key) + ifnull(octet_length(value), 0)) FROM log", func(v []driver.Value) error {
		bytes, _ := v[1].(int64)
		l.dead = v[0].(int64)*replica.EntryOverhead + bytes
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	rows := 0
	const living = "SELECT rev, created, key, value, crc FROM log WHERE deleted = 0 AND rev NOT IN (SELECT prev FROM log)"
	err = query(f.conn, living, func(v []driver.Value) error {
		if rows++; rows%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		e := scanEntry(v[0], v[1], v[2], v[3])
		crc, _ := v[4].(int64)
		if err := verify(e, crc); err != nil {
			if !hasAnyPrefix(e.Key, expendable) {
				return err
			}
			l.bad = append(l.bad, badRow{key: e.Key, rev: e.Rev, reason: "its bytes are not those that were written", value: e.Value})
			return nil
		}
		l.living += replica.Cost(e)
		if old := l.index.Put(e); old != nil {
			return &checkError{fmt.Sprintf("%q exists twice, at revisions %d and %d", e.Key, old.Rev, e.Rev)}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	l.dead -= l.living
	return l, nil
}

// verify compares an entry with the checksum of its row.
func verify(e *sqlstore.Entry, crc int64) error {
	if int64(int32(checksum(e.Rev, e.Key, e.Value))) != crc {
		return &checkError{fmt.Sprintf("revision %d of %q does not match its checksum", e.Rev, e.Key)}
	}
	return nil
}

// scanEntry copies a row's columns. The driver returns what the type says, or the file is not what migrate made.
func scanEntry(rev, created, key, value driver.Value) *sqlstore.Entry {
	e := &sqlstore.Entry{}
	r, _ := rev.(int64)
	c, _ := created.(int64)
	e.Rev, e.Created = sqlstore.Revision(r), sqlstore.Revision(c)
	e.Key, _ = key.(string)
	if b, ok := value.([]byte); ok {
		e.Value = append(make([]byte, 0, len(b)), b...)
	}
	return e
}
