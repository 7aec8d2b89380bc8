package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	modernc "modernc.org/sqlite"

	"petrel.dev/petrel/internal/durable"
)

// DamagedError says that the file is not sound. It has been set aside, and the store stays closed until an operator decides:
// with an empty one, every controller would conclude that nothing should exist.
type DamagedError struct {
	Path   string
	Aside  string // where the damaged file is now
	Backup string // the newest good backup, "" when there is none
	Reason error
}

func (e *DamagedError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "store %s is damaged", e.Path)
	if e.Reason != nil {
		fmt.Fprintf(&b, " (%v)", e.Reason)
	}
	fmt.Fprintf(&b, " and was set aside as %s; ", e.Aside)
	if e.Backup != "" {
		fmt.Fprintf(&b, "the newest good backup is %s: copy it to %s to go back to it, or move the damaged file elsewhere to start empty",
			e.Backup, e.Path)
	} else {
		fmt.Fprintf(&b, "there is no good backup: copy one to %s, or move the damaged file elsewhere to start empty", e.Path)
	}
	b.WriteString("; or start the hub once with --salvage to keep what can be read and be told what cannot")
	return b.String()
}

func (e *DamagedError) Unwrap() error { return e.Reason }

// checkError is damage that SQLite does not see and that was found by checking.
type checkError struct{ what string }

func (e *checkError) Error() string { return e.what }

// SQLite's result codes for a file that is not sound.
const (
	codeCorrupt = 11
	codeNotADB  = 26
)

func isDamage(err error) bool {
	var c *checkError
	if errors.As(err, &c) {
		return true
	}
	code := sqliteCode(err)
	return code == codeCorrupt || code == codeNotADB
}

func quickCheck(conn driverConn) error {
	var found []string
	err := query(conn, "PRAGMA quick_check(5)", func(v []driver.Value) error {
		if s, _ := v[0].(string); s != "ok" {
			found = append(found, s)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("check: %w", err)
	}
	if len(found) > 0 {
		return &checkError{strings.Join(found, "; ")}
	}
	return nil
}

// asideTime is the form of the time in names of what was set aside.
const asideTime = "20060102T150405Z"

// asideMark begins the suffix of damaged files that were set aside.
const asideMark = ".damaged-"

// setAside renames the damaged file and what belongs to it, and returns the *DamagedError to report.
func setAside(ctx context.Context, cfg Config, reason error) error {
	aside := cfg.Path + asideMark + time.Now().UTC().Format(asideTime)
	if err := moveAside(cfg.Path, aside); err != nil {
		return fmt.Errorf("store %s is damaged (%w) and cannot be set aside: %v", cfg.Path, reason, err)
	}
	cfg.Log.Error("store is damaged and was set aside", "path", cfg.Path, "aside", aside, "reason", reason)
	return &DamagedError{Path: cfg.Path, Aside: aside, Backup: newestGood(ctx, cfg.BackupDir), Reason: reason}
}

// moveAside renames the database first: should the power go in between, there is no database without its last commits, which
// would pass every check; refuseAside moves the rest.
func moveAside(path, aside string) error {
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := durable.Rename(path+suffix, aside+suffix); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// dropStaleWAL sets aside a WAL that belongs to another database than the one at cfg.Path: a backup was copied over a store
// that had not been closed. SQLite would apply it. The sign is that the mark beside the file is older than the file's name:
// the mark is written only once the name is in the database itself, and a backup has none.
func dropStaleWAL(cfg Config) error {
	wal := cfg.Path + "-wal"
	if fi, err := os.Stat(wal); err != nil || fi.Size() == 0 {
		return nil
	}
	if _, marked := readMark(cfg.Path); !marked {
		return nil
	}
	named, err := namedWithoutWAL(cfg.Path)
	if err != nil || named {
		return nil // what cannot be read is judged by those who open it
	}
	aside := wal + ".stale-" + time.Now().UTC().Format(asideTime)
	cfg.Log.Warn("WAL of another database was set aside: the store was restored from a backup", "path", aside)
	if err := os.Remove(cfg.Path + "-shm"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return durable.Rename(wal, aside)
}

// namedWithoutWAL reports whether the database alone, without its WAL, has the name of a history.
func namedWithoutWAL(path string) (bool, error) {
	c, err := (&modernc.Driver{}).Open(dsn(path, url.Values{"immutable": {"1"}}))
	if err != nil {
		return false, err
	}
	defer c.Close()
	f := &file{conn: c.(driverConn)}
	if n, err := queryInt(f.conn, "SELECT count(*) FROM sqlite_schema WHERE name = 'log'"); err != nil || n == 0 {
		return false, errors.Join(err, errNoStore)
	}
	return f.historyID() != "", nil
}

var errNoStore = errors.New("it holds no store")

// refuseAside keeps a restart from quietly beginning with an empty store after setAside; with Salvage it makes one of it.
func refuseAside(ctx context.Context, cfg Config) error {
	if _, err := os.Stat(cfg.Path); !errors.Is(err, os.ErrNotExist) {
		return nil
	}
	old, _ := filepath.Glob(globEscape(cfg.Path) + asideMark + "*Z")
	if len(old) == 0 {
		return nil
	}
	sort.Strings(old)
	aside := old[len(old)-1]
	if err := moveAside(cfg.Path, aside); err != nil { // what a power cut has left of it
		return fmt.Errorf("open store: %w", err)
	}
	if cfg.Salvage {
		return salvage(ctx, cfg, aside)
	}
	return &DamagedError{Path: cfg.Path, Aside: aside, Backup: newestGood(ctx, cfg.BackupDir)}
}

func globEscape(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

// newestGood returns the newest backup in dir that passes the check, "" if none.
func newestGood(ctx context.Context, dir string) string {
	if dir == "" {
		return ""
	}
	files, _ := filepath.Glob(filepath.Join(globEscape(dir), "*.db"))
	modified := func(path string) time.Time {
		fi, err := os.Stat(path)
		if err != nil {
			return time.Time{}
		}
		return fi.ModTime()
	}
	sort.Slice(files, func(i, j int) bool { return modified(files[i]).After(modified(files[j])) })
	for _, path := range files {
		if Verify(ctx, path) == nil {
			return path
		}
	}
	return ""
}
