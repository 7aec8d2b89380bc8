package sqlite_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"petrel.dev/petrel/sqlstore"
	"petrel.dev/petrel/sqlstore/sqlite"
)

// TestCopyOfAStoreInUse copies a store, as another process would, while it is written to: the copy has exactly what there was at its
// revision, and the store goes on.
func TestCopyOfAStoreInUse(t *testing.T) {
	cfg := sqlite.Config{Path: filepath.Join(t.TempDir(), "hub.db")}
	db := start(t, cfg)
	// Commit n makes /a/n and /b: a copy must have /a/1 to /a/n, and /b of n.
	write := func(n int) {
		text := []byte(fmt.Sprint(n))
		_, err := db.Commit(context.Background(),
			sqlstore.Op{Key: fmt.Sprintf("/a/%d", n), Value: text, RevAt: -1, If: sqlstore.AnyRevision},
			sqlstore.Op{Key: "/b", Value: text, RevAt: -1, If: sqlstore.AnyRevision})
		if err != nil {
			t.Errorf("commit %d: %v", n, err)
		}
	}
	n := 1
	for ; n <= 500; n++ {
		write(n)
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for ; ; n++ {
			select {
			case <-stop:
				return
			default:
				write(n)
			}
		}
	}()
	target := filepath.Join(t.TempDir(), "copy.db")
	rev, err := sqlite.Copy(t.Context(), cfg, target)
	close(stop)
	<-stopped
	if err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(target); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("copy has mode %v, %v", fi.Mode(), err)
	}
	copied := start(t, sqlite.Config{Path: target})
	if got := revision(t, copied); got != rev || rev < 1000 || rev%2 != 0 {
		t.Errorf("copy is at revision %d, Copy returned %d", got, rev)
	}
	b, _ := get(t, copied, "/b")
	if want := fmt.Sprint(int(rev) / 2); string(b.Value) != want {
		t.Errorf("/b is %s at revision %d, want %s", b.Value, rev, want)
	}
	if got := copied.Len(); got != int(rev)/2+1 {
		t.Errorf("copy has %d keys at revision %d", got, rev)
	}
	if copied.History() == db.History() {
		t.Error("copy goes on with the history of the store")
	}
	write(n + 1)
}

// TestPlace puts a copy where a store is, is not, and is in use.
func TestPlace(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "hub.db")
	db, err := sqlite.Open(t.Context(), sqlite.Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- db.Run(context.Background()) }()
	keep(t, db, "/kept", "yes")
	one, two := filepath.Join(dir, "one.db"), filepath.Join(dir, "two.db")
	for _, to := range []string{one, two} {
		if _, err := sqlite.Copy(t.Context(), sqlite.Config{Path: path}, to); err != nil {
			t.Fatal(err)
		}
	}
	keep(t, db, "/later", "yes")
	if _, err := sqlite.Place(t.Context(), path, one, true); !errors.As(err, new(*sqlite.InUseError)) {
		t.Errorf("a store in use is replaced: %v", err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	<-done
	if _, err := sqlite.Place(t.Context(), path, one, false); !errors.As(err, new(*sqlite.ExistsError)) {
		t.Errorf("a store that is there is replaced without asking: %v", err)
	}
	aside, err := sqlite.Place(t.Context(), path, one, true)
	if err != nil {
		t.Fatal(err)
	}
	if err := sqlite.Verify(t.Context(), aside); err != nil {
		t.Errorf("what was set aside: %v", err)
	}
	damaged := filepath.Join(dir, "damaged.db")
	b, _ := os.ReadFile(two)
	if err := os.WriteFile(damaged, bytes.Replace(b, []byte("yes"), []byte("no!"), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	fresh := filepath.Join(t.TempDir(), "hub.db")
	if _, err := sqlite.Place(t.Context(), fresh, damaged, false); err == nil {
		t.Error("a damaged snapshot becomes the store")
	}
	if _, err := sqlite.Place(t.Context(), fresh, two, false); err != nil {
		t.Error(err)
	}
	for _, p := range []string{path, fresh} {
		db := start(t, sqlite.Config{Path: p})
		if _, ok := get(t, db, "/kept"); !ok {
			t.Errorf("%s has not what was copied", p)
		}
		if _, ok := get(t, db, "/later"); ok {
			t.Errorf("%s has what came after the copy", p)
		}
	}
}

func keep(t *testing.T, db *sqlite.DB, key, value string) {
	t.Helper()
	if _, err := db.Commit(t.Context(), sqlstore.Op{Key: key, Value: []byte(value), RevAt: -1, If: sqlstore.AnyRevision}); err != nil {
		t.Fatal(err)
	}
}

// TestCopyOfNothing names what is wrong, and leaves nothing behind.
func TestCopyOfNothing(t *testing.T) {
	dir := t.TempDir()
	other := filepath.Join(dir, "other")
	if err := os.WriteFile(other, []byte("no database at all, but longer than a header of one, which is a hundred bytes: here they are, all of them"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{filepath.Join(dir, "none"), other} {
		if _, err := sqlite.Copy(t.Context(), sqlite.Config{Path: path}, filepath.Join(dir, "target")); err == nil {
			t.Errorf("%s was copied", path)
		}
		if _, err := os.Stat(filepath.Join(dir, "target")); !os.IsNotExist(err) {
			t.Errorf("of %s there is a target: %v", path, err)
		}
	}
}

// TestCopyKeepsWhatIsThere leaves a file alone that has the target's name.
func TestCopyKeepsWhatIsThere(t *testing.T) {
	cfg := sqlite.Config{Path: filepath.Join(t.TempDir(), "hub.db")}
	keep(t, start(t, cfg), "/a", "1")
	target := filepath.Join(t.TempDir(), "other")
	if err := os.WriteFile(target, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := sqlite.Copy(t.Context(), cfg, target); !errors.Is(err, os.ErrExist) {
		t.Errorf("copy over a file: %v", err)
	}
	if b, err := os.ReadFile(target); string(b) != "mine" {
		t.Errorf("the file is %q, %v", b, err)
	}
}
