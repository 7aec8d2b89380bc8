package sqlite_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"petrel.dev/petrel/sqlstore"
	"petrel.dev/petrel/sqlstore/sqlite"
)

// stored makes a closed store of 300 keys in its own directory and a backup of it, and returns its Config.
func stored(t *testing.T) sqlite.Config {
	t.Helper()
	dir := t.TempDir()
	cfg := sqlite.Config{Path: filepath.Join(dir, "hub.db"), BackupDir: filepath.Join(dir, "backup")}
	if err := os.Mkdir(cfg.BackupDir, 0o700); err != nil {
		t.Fatal(err)
	}
	db, err := sqlite.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	go db.Run(t.Context())
	var ops []sqlstore.Op
	for i := range 300 {
		ops = append(ops, put(fmt.Sprintf("/key/%03d", i), fmt.Sprintf(`{"name":"value-%03d"}`, i), 0))
	}
	if _, err := db.Commit(t.Context(), ops...); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Backup(t.Context(), filepath.Join(cfg.BackupDir, "good.db")); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	return cfg
}

func TestDamageIsSetAsideAndNeverForgotten(t *testing.T) {
	for name, damage := range map[string]func([]byte) []byte{
		"not a database": func(b []byte) []byte { copy(b, "\x00\x00\x00\x00garbage"); return b },
		"truncated":      func(b []byte) []byte { return b[:len(b)/2] },
		"a page lost":    func(b []byte) []byte { clear(b[len(b)/2/512*512:][:512]); return b },
		"one bit flipped in a value": func(b []byte) []byte {
			at := bytes.Index(b, []byte("value-150"))
			b[at] ^= 1
			return b
		},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := stored(t)
			b, err := os.ReadFile(cfg.Path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(cfg.Path, damage(b), 0o600); err != nil {
				t.Fatal(err)
			}
			// A newer backup that is no good must not be offered.
			if err := os.WriteFile(filepath.Join(cfg.BackupDir, "newer.db"), []byte("SQLite format 3\x00 no"), 0o600); err != nil {
				t.Fatal(err)
			}
			good := filepath.Join(cfg.BackupDir, "good.db")
			var damaged *sqlite.DamagedError
			for range 2 { // the second start must not begin with an empty store
				_, err = sqlite.Open(t.Context(), cfg)
				if !errors.As(err, &damaged) {
					t.Fatalf("open: %v", err)
				}
				if damaged.Backup != good || !strings.Contains(err.Error(), good) || !strings.Contains(err.Error(), damaged.Aside) {
					t.Errorf("error %q does not offer the good backup", err)
				}
				if _, err := os.Stat(damaged.Aside); err != nil {
					t.Errorf("what was damaged is gone: %v", err)
				}
			}
			b, err = os.ReadFile(good)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(cfg.Path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			db := start(t, cfg)
			if db.Len() != 300 || revision(t, db) != 300 {
				t.Errorf("restored %d keys at revision %d", db.Len(), revision(t, db))
			}
			if _, err := db.Commit(t.Context(), put("/key/new", "1", 0)); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	t.Run("newer schema", func(t *testing.T) {
		cfg := stored(t)
		db, err := sqlite.Open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := db.Exec("PRAGMA user_version = 99"); err != nil {
			t.Fatal(err)
		}
		db.Close()
		var newer *sqlite.VersionError
		if _, err := sqlite.Open(t.Context(), cfg); !errors.As(err, &newer) || newer.Have != 99 || newer.Path != cfg.Path {
			t.Fatalf("open: %v", err)
		}
		if _, err := os.Stat(cfg.Path); err != nil {
			t.Errorf("the file was moved: %v", err)
		}
	})
	t.Run("another program's file", func(t *testing.T) {
		cfg := stored(t)
		db, err := sqlite.Open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := db.Exec("PRAGMA application_id = 7"); err != nil {
			t.Fatal(err)
		}
		db.Close()
		if _, err := sqlite.Open(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "not a Petrel store") {
			t.Fatalf("open: %v", err)
		}
	})
	t.Run("in use", func(t *testing.T) {
		cfg := stored(t)
		start(t, cfg)
		var inUse *sqlite.InUseError
		if _, err := sqlite.Open(t.Context(), cfg); !errors.As(err, &inUse) {
			t.Fatalf("open: %v", err)
		}
	})
	t.Run("no directory", func(t *testing.T) {
		if _, err := sqlite.Open(t.Context(), sqlite.Config{Path: filepath.Join(t.TempDir(), "none", "hub.db")}); !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("open: %v", err)
		}
	})
}

// TestReadableBySQLite checks what a person with sqlite3 sees.
func TestReadableBySQLite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hub.db")
	db, err := sqlite.Open(t.Context(), sqlite.Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	go db.Run(t.Context())
	for _, ops := range [][]sqlstore.Op{
		{put("/a", `{"n":1}`, 0), put("/b", `{"n":2}`, 0)},
		{put("/a", `{"n":3}`, 1), {Key: "/b", Delete: true, Value: []byte(`{"n":2}`), RevAt: -1, If: 2}},
	} {
		if _, err := db.Commit(t.Context(), ops...); err != nil {
			t.Fatal(err)
		}
	}
	db.Close()
	if db, err = sqlite.Open(t.Context(), sqlite.Config{Path: path}); err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for query, want := range map[string]string{
		"SELECT * FROM objects":                               `/a|3|1|{"n":3}`,
		"SELECT * FROM changes":                               `1|create|/a|{"n":1};2|create|/b|{"n":2};3|update|/a|{"n":3};4|delete|/b|{"n":2}`,
		"SELECT key, json_extract(value, '$.n') FROM objects": `/a|3`,
		"PRAGMA integrity_check":                              "ok",
	} {
		rows, err := db.Query(query)
		if got := strings.Join(rows, ";"); err != nil || got != want {
			t.Errorf("%s: %s (%v), want %s", query, got, err, want)
		}
	}
}
