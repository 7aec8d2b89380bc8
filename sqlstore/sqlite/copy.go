package sqlite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"petrel.dev/petrel/internal/durable"
	"petrel.dev/petrel/sqlstore"
)

// Copy writes a snapshot of the store at cfg.Path to target, which must not exist, and returns the snapshot's revision. It is for
// another process than the hub: the hub may have the store open and go on writing. The snapshot has what was committed at one
// moment, and begins a new history when it is opened. What was written is checked before Copy returns.
func Copy(ctx context.Context, cfg Config, target string) (rev sqlstore.Revision, err error) {
	if _, err := os.Stat(cfg.Path); err != nil {
		return 0, fmt.Errorf("copy store: %w", err)
	}
	made, err := os.OpenFile(target, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		err = made.Close()
	}
	if err != nil {
		return 0, fmt.Errorf("copy store: %w", err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(target)
			err = fmt.Errorf("copy store %s: %w", cfg.Path, err)
		}
	}()
	switch lock, err := lockFile(cfg.Path + ".lock"); {
	case errors.As(err, new(*InUseError)): // its hub has put everything right that an open store needs
	case err != nil:
		return 0, err
	default:
		defer lock.unlock()
		// A WAL of another database would be taken for this one's.
		if err := dropStaleWAL(cfg); err != nil {
			return 0, err
		}
	}
	if err := vacuumInto(ctx, cfg.Path, target); err != nil {
		return 0, err
	}
	if rev, err = nameless(target); err != nil {
		return 0, err
	}
	if err := syncFile(target); err != nil {
		return 0, err
	}
	return rev, Verify(ctx, target)
}

// vacuumInto has SQLite write what path holds into target, an empty file: one read transaction, so commits go on meanwhile.
func vacuumInto(ctx context.Context, path, target string) error {
	conn, err := openConn(path)
	if err != nil {
		return err
	}
	defer conn.Close()
	f := &file{conn: conn}
	// The last connection to close would copy the WAL back; that is the hub's to do.
	for _, text := range []string{fmt.Sprint("PRAGMA busy_timeout = ", busyTimeout), "PRAGMA wal_autocheckpoint = 0", "PRAGMA cache_size = -1024"} {
		if err := f.exec(text); err != nil {
			return err
		}
	}
	app, err := queryInt(conn, "PRAGMA application_id")
	if err != nil {
		return err
	}
	if app != applicationID {
		return fmt.Errorf("it is not a Petrel store")
	}
	_, err = conn.ExecContext(ctx, "VACUUM INTO ?", named(target))
	return err
}

// nameless takes the name of its history from the snapshot at path, and returns its revision.
func nameless(path string) (sqlstore.Revision, error) {
	conn, err := openConn(path)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	f := &file{conn: conn}
	if err := f.exec("PRAGMA journal_mode = OFF"); err != nil {
		return 0, err
	}
	if err := f.exec("DELETE FROM history"); err != nil {
		return 0, err
	}
	rev, err := queryInt(conn, "SELECT max(ifnull((SELECT max(rev) FROM log), 0), (SELECT value FROM meta WHERE name = 'compacted'))")
	return sqlstore.Revision(rev), err
}

// ExistsError says that there is a store where a snapshot should be put.
type ExistsError struct{ Path string }

func (e *ExistsError) Error() string { return fmt.Sprintf("there is a store already: %s", e.Path) }

// Place makes the snapshot at from, which lies on the same file system, the store at path. A store that is there is an *ExistsError, or with
// replace is renamed and its new path returned; one that a hub has open is an *InUseError. The snapshot is checked first.
func Place(ctx context.Context, path, from string, replace bool) (replaced string, err error) {
	lock, err := lockFile(path + ".lock")
	if err != nil {
		return "", err
	}
	defer lock.unlock()
	if err := Verify(ctx, from); err != nil {
		return "", err
	}
	switch _, err := os.Stat(path); {
	case err == nil && !replace:
		return "", &ExistsError{path}
	case err == nil:
		replaced = path + ".replaced-" + time.Now().UTC().Format(asideTime)
		if err := moveAside(path, replaced); err != nil {
			return "", fmt.Errorf("set %s aside: %w", path, err)
		}
	case !errors.Is(err, os.ErrNotExist):
		return "", err
	}
	for _, suffix := range []string{"-wal", "-shm"} { // of a store that is gone
		if err := os.Remove(path + suffix); err != nil && !errors.Is(err, os.ErrNotExist) {
			return replaced, err
		}
	}
	// A WAL that came back with the power would be taken for the new store's.
	if err := durable.SyncDir(filepath.Dir(path)); err != nil {
		return replaced, err
	}
	return replaced, durable.Rename(from, path)
}
