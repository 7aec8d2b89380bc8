package sqlite_test

import (
	"io"
	"os"
	"path/filepath"
	"testing"

	"petrel.dev/petrel/sqlstore"
	"petrel.dev/petrel/sqlstore/sqlite"
	"petrel.dev/petrel/sqlstore/storetest"
)

// place is a store's directory.
type place struct{ dir string }

func (p place) path() string { return filepath.Join(p.dir, "hub.db") }

func (p place) Open(t testing.TB) (storetest.Store, func()) {
	db, err := sqlite.Open(t.Context(), sqlite.Config{Path: p.path()})
	if err != nil {
		t.Fatal(err)
	}
	go db.Run(t.Context())
	return db, func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}
}

func (p place) Backup(t testing.TB, s storetest.Store) {
	if _, err := s.(*sqlite.DB).Backup(t.Context(), filepath.Join(p.dir, "backup")); err != nil {
		t.Fatal(err)
	}
}

func (p place) Restore(t testing.TB) {
	copyFile(t, filepath.Join(p.dir, "backup"), p.path())
	for _, suffix := range []string{"-wal", "-shm"} {
		_ = os.Remove(p.path() + suffix)
	}
}

func copyFile(t testing.TB, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestRollbackIsSeen puts back older copies of the store's files, as a person would by hand.
func TestRollbackIsSeen(t *testing.T) {
	// life opens the store, writes n times and returns the history; clean: it is closed afterwards, otherwise it is left as a
	// crash leaves it.
	life := func(t *testing.T, dir string, n int) string {
		t.Helper()
		db, err := sqlite.Open(t.Context(), sqlite.Config{Path: filepath.Join(dir, "hub.db")})
		if err != nil {
			t.Fatal(err)
		}
		go db.Run(t.Context())
		for range n {
			if _, err := db.Commit(t.Context(), put("/key", "x", sqlstore.AnyRevision)); err != nil {
				t.Fatal(err)
			}
		}
		id := db.History()
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		return id
	}
	names := []string{"hub.db", "hub.db.history"}
	for name, change := range map[string]func(t *testing.T, dir, old string) string{
		"the file written over by an older copy": func(t *testing.T, dir, old string) string {
			copyFile(t, filepath.Join(old, "hub.db"), filepath.Join(dir, "hub.db"))
			return dir
		},
		"file and mark replaced by older copies": func(t *testing.T, dir, old string) string {
			for _, n := range names {
				copyFile(t, filepath.Join(old, n), filepath.Join(dir, n+".new"))
				if err := os.Rename(filepath.Join(dir, n+".new"), filepath.Join(dir, n)); err != nil {
					t.Fatal(err)
				}
			}
			return dir
		},
		"the directory elsewhere": func(_ *testing.T, _, old string) string { return old },
		"the mark lost": func(t *testing.T, dir, _ string) string {
			if err := os.Remove(filepath.Join(dir, "hub.db.history")); err != nil {
				t.Fatal(err)
			}
			return dir
		},
		"the mark torn": func(t *testing.T, dir, _ string) string {
			if err := os.Truncate(filepath.Join(dir, "hub.db.history"), 10); err != nil {
				t.Fatal(err)
			}
			return dir
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir, old := t.TempDir(), t.TempDir()
			before := life(t, dir, 5)
			for _, n := range names {
				copyFile(t, filepath.Join(dir, n), filepath.Join(old, n))
			}
			if id := life(t, dir, 5); id != before {
				t.Fatalf("a restart changed the history from %s to %s", before, id)
			}
			now := change(t, dir, old)
			after := life(t, now, 0)
			if after == before {
				t.Error("the history is the old one")
			}
			if id := life(t, now, 1); id != after {
				t.Errorf("and changes with the next start again, from %s to %s", after, id)
			}
		})
	}
}
