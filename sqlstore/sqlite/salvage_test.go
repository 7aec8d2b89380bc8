package sqlite_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"petrel.dev/petrel/sqlstore"
	"petrel.dev/petrel/sqlstore/sqlite"
)

func rewrite(t *testing.T, path string, change func([]byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, change(b), 0o600); err != nil {
		t.Fatal(err)
	}
}

func flip(text string) func([]byte) []byte {
	return func(b []byte) []byte { b[bytes.Index(b, []byte(text))] ^= 1; return b }
}

// TestBadEventDoesNotStopTheHub flips a bit in an Event: the Event is lost and named in the log, and a new history begins.
func TestBadEventDoesNotStopTheHub(t *testing.T) {
	for name, compact := range map[string]bool{"in history": false, "behind the horizon": true} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "hub.db")
			cfg := sqlite.Config{Path: path, Expendable: []string{"/events/"}}
			db, err := sqlite.Open(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			go db.Run(t.Context())
			if _, err := db.Commit(t.Context(), put("/events/a", "event-aaaa", 0), put("/pods/b", "pod-bbbb", 0), put("/events/c", "event-cccc", 0)); err != nil {
				t.Fatal(err)
			}
			if compact {
				if err := db.Compact(t.Context(), 3); err != nil {
					t.Fatal(err)
				}
			}
			before := db.History()
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			rewrite(t, path, flip("event-aaaa"))
			for range 2 {
				db, err := sqlite.Open(t.Context(), cfg)
				if err != nil {
					t.Fatal(err)
				}
				if _, ok := get(t, db, "/events/a"); ok || db.Len() != 2 || revision(t, db) != 3 {
					t.Errorf("%d objects at revision %d, the bad one there: %v", db.Len(), revision(t, db), ok)
				}
				if db.History() == before {
					t.Error("the history is the old one")
				}
				if err := db.Close(); err != nil {
					t.Fatal(err)
				}
			}
			report, err := os.ReadFile(path + ".report")
			if err != nil || !strings.Contains(string(report), `"/events/a"`) {
				t.Errorf("report %q, %v", report, err)
			}
			rewrite(t, path, flip("pod-bbbb"))
			var damaged *sqlite.DamagedError
			if _, err := sqlite.Open(t.Context(), cfg); !errors.As(err, &damaged) || !strings.Contains(err.Error(), "--salvage") {
				t.Errorf("with a bad pod: %v", err)
			}
		})
	}
}

// TestSalvage makes a store again of what can be read of a damaged one; what cannot be read is named.
func TestSalvage(t *testing.T) {
	for name, c := range map[string]struct {
		damage func([]byte) []byte
		least  int // of 300 objects
		names  string
	}{
		"one bit flipped in a value": {flip("value-150"), 299, `"/key/150"`},
		"a page lost": {func(b []byte) []byte {
			at := bytes.Index(b, []byte("value-150")) / 512 * 512
			clear(b[at:][:512])
			return b
		}, 280, "revisions"},
		"a stretch of pages": {func(b []byte) []byte {
			at := bytes.Index(b, []byte("value-150")) / 512 * 512
			for i := range b[at : at+2048] {
				b[at+i] = 0xa5
			}
			return b
		}, 200, "revisions"},
		"truncated": {func(b []byte) []byte { return b[:len(b)*3/4/512*512] }, 50, "revisions"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := stored(t)
			rewrite(t, cfg.Path, c.damage)
			var damaged *sqlite.DamagedError
			if _, err := sqlite.Open(t.Context(), cfg); !errors.As(err, &damaged) {
				t.Fatalf("open: %v", err)
			}
			cfg.Salvage = true
			db, err := sqlite.Open(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			go db.Run(t.Context())
			if db.Len() < c.least || db.Len() >= 300 || revision(t, db) != 300 {
				t.Errorf("salvaged %d of 300 objects at revision %d, want at least %d", db.Len(), revision(t, db), c.least)
			}
			page, err := db.List(t.Context(), "/key/", "", 0, 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range page.Entries {
				if want := fmt.Sprintf(`{"name":"value-%s"}`, strings.TrimPrefix(e.Key, "/key/")); string(e.Value) != want {
					t.Errorf("%s is %s", e.Key, e.Value)
				}
			}
			report, err := os.ReadFile(damaged.Aside + ".report")
			if err != nil || !strings.Contains(string(report), c.names) {
				t.Errorf("report %q, %v: does not name %s", report, err, c.names)
			}
			if _, err := db.Commit(t.Context(), put("/key/new", "1", 0)); err != nil {
				t.Error(err)
			}
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			if err := sqlite.Verify(t.Context(), cfg.Path); err != nil {
				t.Error(err)
			}
			cfg.Salvage = false
			start(t, cfg) // and needs no flag any more
		})
	}
	t.Run("not a database", func(t *testing.T) {
		cfg := stored(t)
		rewrite(t, cfg.Path, func(b []byte) []byte { copy(b, "garbage garbage garbage"); return b })
		cfg.Salvage = true
		if _, err := sqlite.Open(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "only a backup helps") ||
			!strings.Contains(err.Error(), "good.db") {
			t.Errorf("open: %v", err)
		}
	})
	t.Run("sound", func(t *testing.T) {
		cfg := stored(t)
		cfg.Salvage = true
		if db := start(t, cfg); db.Len() != 300 {
			t.Errorf("%d objects", db.Len())
		}
		if aside, _ := filepath.Glob(cfg.Path + ".damaged-*"); len(aside) > 0 {
			t.Errorf("a sound store was set aside: %v", aside)
		}
	})
}

// TestPowerCutWhileSettingAside opens a store whose database was renamed, and its WAL not yet. The WAL must not be applied to what comes to the
// database's place, nor be lost to what was set aside.
func TestPowerCutWhileSettingAside(t *testing.T) {
	cfg := stored(t)
	aside := cfg.Path + ".damaged-20260101T000000Z"
	if err := os.Rename(cfg.Path, aside); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(cfg.Path+"-wal", []byte("the log of the damaged one"), 0o600); err != nil {
		t.Fatal(err)
	}
	var damaged *sqlite.DamagedError
	if _, err := sqlite.Open(t.Context(), cfg); !errors.As(err, &damaged) {
		t.Fatalf("open: %v", err)
	}
	if b, err := os.ReadFile(aside + "-wal"); err != nil || string(b) != "the log of the damaged one" {
		t.Errorf("the WAL beside the damaged database: %q, %v", b, err)
	}
	if _, err := os.Stat(cfg.Path + "-wal"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the WAL is still there: %v", err)
	}
}

// TestRestoreOverACrashedStore copies a backup over a store that was killed and has left its WAL behind: the restored store is
// the backup, not a mixture.
func TestRestoreOverACrashedStore(t *testing.T) {
	cfg := stored(t)
	db, err := sqlite.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	go db.Run(t.Context())
	for i := range 100 {
		if _, err := db.Commit(t.Context(), put(fmt.Sprintf("/key/%03d", i), "changed after the backup", sqlstore.AnyRevision)); err != nil {
			t.Fatal(err)
		}
	}
	crashed := filepath.Join(t.TempDir(), "hub.db")
	for _, suffix := range []string{"", "-wal", ".history"} {
		copyFile(t, cfg.Path+suffix, crashed+suffix)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	copyFile(t, filepath.Join(cfg.BackupDir, "good.db"), crashed)
	db = start(t, sqlite.Config{Path: crashed})
	if db.Len() != 300 || revision(t, db) != 300 {
		t.Errorf("%d objects at revision %d", db.Len(), revision(t, db))
	}
	if e, _ := get(t, db, "/key/000"); string(e.Value) != `{"name":"value-000"}` {
		t.Errorf("/key/000 is %s", e.Value)
	}
	if stale, _ := filepath.Glob(crashed + "-wal.stale-*"); len(stale) != 1 {
		t.Errorf("the other WAL: %v", stale)
	}
}

// TestNightlyBackups counts the backups: one for each night in which something is new, the newest few stay, and nothing is written
// otherwise.
func TestNightlyBackups(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		db, err := sqlite.Open(t.Context(), sqlite.Config{Path: filepath.Join(dir, "hub.db")})
		if err != nil {
			t.Fatal(err)
		}
		go db.Run(t.Context())
		defer func() {
			if err := db.Close(); err != nil {
				t.Error(err)
			}
		}()
		policy := sqlite.Backups{Dir: filepath.Join(dir, "backup"), Keep: 3, Hour: 3, FirstAfter: time.Hour}
		left := filepath.Join(policy.Dir, "hub-19991231T235959Z-1-abcdefgh.db"+sqlite.PartSuffix) // by a power cut
		if err := errors.Join(os.Mkdir(policy.Dir, 0o700), os.WriteFile(left, []byte("SQLite"), 0o600)); err != nil {
			t.Fatal(err)
		}
		go db.RunBackups(t.Context(), policy)
		backups := func() []string {
			synctest.Wait()
			found, err := filepath.Glob(filepath.Join(policy.Dir, "*"))
			if err != nil {
				t.Fatal(err)
			}
			return found
		}
		write := func() {
			t.Helper()
			if _, err := db.Commit(t.Context(), put("/key", "x", sqlstore.AnyRevision)); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(48 * time.Hour)
		if found := backups(); len(found) != 0 {
			t.Errorf("an empty store was backed up, or a part of a backup stays: %v", found)
		}
		write()
		time.Sleep(25 * time.Hour)
		first := backups()
		if len(first) != 1 {
			t.Fatalf("after a night: %v", first)
		}
		if err := sqlite.Verify(t.Context(), first[0]); err != nil {
			t.Error(err)
		}
		// The time here is not the machine's, so the file has it only when Backup has set it.
		if fi, err := os.Stat(first[0]); err != nil || !strings.Contains(first[0], fi.ModTime().UTC().Format("20060102T150405Z")) {
			t.Errorf("%s has not the time of its contents: %v, %v", first[0], fi.ModTime(), err)
		}
		time.Sleep(10 * 24 * time.Hour)
		if found := backups(); len(found) != 1 || found[0] != first[0] {
			t.Errorf("after ten nights without a change: %v", found)
		}
		others := filepath.Join(policy.Dir, "mine.db")
		if err := os.WriteFile(others, []byte("a person's"), 0o600); err != nil {
			t.Fatal(err)
		}
		for range 6 {
			write()
			time.Sleep(24 * time.Hour)
		}
		found := backups()
		if len(found) != 4 || found[3] != others {
			t.Errorf("after six nights with changes: %v", found)
		}
		// A board without a battery: what it has backed up was made in its future.
		for _, path := range found[:3] {
			if err := os.Rename(path, strings.Replace(path, "hub-2000", "hub-2040", 1)); err != nil {
				t.Fatal(err)
			}
		}
		write()
		time.Sleep(24 * time.Hour)
		found = backups()
		if len(found) != 4 || !strings.Contains(found[0], "hub-2000") {
			t.Errorf("with backups of the future: %v", found)
		}
		time.Sleep(24 * time.Hour)
		if again := backups(); !slices.Equal(again, found) {
			t.Errorf("a night without a change, with backups of the future: %v, before %v", again, found)
		}
	})
}
