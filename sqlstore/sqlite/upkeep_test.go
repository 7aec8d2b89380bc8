package sqlite_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"petrel.dev/petrel/sqlstore"
	"petrel.dev/petrel/sqlstore/sqlite"
)

func size(t *testing.T, path string) int64 {
	t.Helper()
	fi, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return fi.Size()
}

// TestChurnIsBounded replaces 50 objects of 1 KiB 40,000 times: 40 MB of writes must leave a file of about the kept
// history, and a WAL of about its limit.
func TestChurnIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hub.db")
	db := start(t, sqlite.Config{Path: path, MaxHistory: 1000})
	v := value(1024)
	for i := range 400 {
		ops := make([]sqlstore.Op, 100)
		for j := range ops {
			ops[j] = sqlstore.Op{Key: fmt.Sprintf("/key/%d", (i*100+j)%50), Value: v, RevAt: -1, If: sqlstore.AnyRevision}
		}
		if _, err := db.Commit(t.Context(), ops...); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Compact(t.Context(), 0); err != nil { // waits for the last upkeep
		t.Fatal(err)
	}
	if n := size(t, path); n > 6<<20 {
		t.Errorf("the file is %d bytes", n)
	}
	if n := size(t, path+"-wal"); n > 10<<20 {
		t.Errorf("the WAL is %d bytes", n)
	}
	if kept := revision(t, db) - db.Compacted(); kept < 1000 || kept > 2500 {
		t.Errorf("%d revisions are kept", kept)
	}
}

// TestHistoryAges lets history become older than KeepHistory: it goes with the writes that come after, not before.
func TestHistoryAges(t *testing.T) {
	db := start(t, sqlite.Config{KeepHistory: time.Millisecond})
	write := func(n int) {
		t.Helper()
		for range n {
			if _, err := db.Commit(t.Context(), put("/key", "x", sqlstore.AnyRevision)); err != nil {
				t.Fatal(err)
			}
		}
	}
	write(400)
	time.Sleep(5 * time.Millisecond)
	write(10)
	if err := db.Compact(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if db.Compacted() < 256 {
		t.Errorf("history since %d is kept", db.Compacted())
	}
	var compacted *sqlstore.CompactedError
	if _, err := db.Watch(t.Context(), "/", 1); !errors.As(err, &compacted) {
		t.Errorf("watch: %v", err)
	}
}

// TestIdleWritesNothing measures what is written after the last commit has been answered and its upkeep is done.
func TestIdleWritesNothing(t *testing.T) {
	if _, ok := written(); !ok {
		t.Skip("this system does not count what a process writes")
	}
	db := start(t, sqlite.Config{MaxHistory: 300})
	for range 1000 {
		if _, err := db.Commit(t.Context(), put("/key", "x", sqlstore.AnyRevision)); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Compact(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	before, _ := written()
	time.Sleep(300 * time.Millisecond)
	get(t, db, "/key")
	if _, err := db.List(t.Context(), "/", "", 0, 0); err != nil {
		t.Fatal(err)
	}
	if after, _ := written(); after != before {
		t.Errorf("%d bytes were written by an idle store", after-before)
	}
}

// TestPrivate checks that files which hold Secrets are for their owner only.
func TestPrivate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hub.db")
	db := start(t, sqlite.Config{Path: path})
	if _, err := db.Commit(t.Context(), put("/secret", "x", 0)); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Backup(t.Context(), path+".backup"); err != nil {
		t.Fatal(err)
	}
	for _, suffix := range []string{"", "-wal", "-shm", ".lock", ".backup"} {
		fi, err := os.Stat(path + suffix)
		if err != nil {
			t.Fatal(err)
		}
		if mode := fi.Mode().Perm(); mode&0o077 != 0 {
			t.Errorf("hub.db%s has mode %o", suffix, mode)
		}
	}
}

func TestLifecycle(t *testing.T) {
	db, err := sqlite.Open(t.Context(), sqlite.Config{Path: filepath.Join(t.TempDir(), "hub.db")})
	if err != nil {
		t.Fatal(err)
	}
	// Without Run a commit waits; given up, it leaves nothing.
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := db.Commit(ctx, put("/given/up", "1", 0)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("commit: %v", err)
	}
	waiting := make(chan error)
	go func() {
		_, err := db.Commit(t.Context(), put("/patient", "1", 0))
		waiting <- err
	}()
	ran := make(chan error)
	go func() { ran <- db.Run(t.Context()) }()
	if err := <-waiting; err != nil {
		t.Error(err)
	}
	if err := db.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "running already") {
		t.Errorf("second run: %v", err)
	}
	if _, ok := get(t, db, "/given/up"); ok || revision(t, db) != 1 {
		t.Errorf("a commit that was given up was committed")
	}
	w, err := db.Watch(t.Context(), "/", 1)
	if err != nil {
		t.Fatal(err)
	}
	next := make(chan error)
	go func() {
		_, err := w.Next(t.Context())
		next <- err
	}()
	if err := db.Close(); err != nil {
		t.Error(err)
	}
	if err := <-next; !errors.Is(err, sqlstore.ErrClosed) {
		t.Errorf("next: %v", err)
	}
	if err := <-ran; err != nil {
		t.Errorf("run: %v", err)
	}
	if _, err := db.Commit(t.Context(), put("/late", "1", 0)); !errors.Is(err, sqlstore.ErrClosed) {
		t.Errorf("commit: %v", err)
	}
	if _, err := db.Watch(t.Context(), "/", 1); !errors.Is(err, sqlstore.ErrClosed) {
		t.Errorf("watch: %v", err)
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}

func TestInvalidOps(t *testing.T) {
	db := start(t, sqlite.Config{})
	for name, op := range map[string]sqlstore.Op{
		"empty key":             {RevAt: -1},
		"delete what is not":    {Key: "/a", Delete: true, RevAt: -1},
		"revision past the end": {Key: "/a", Value: []byte("x"), RevAt: 2},
		"no such precondition":  {Key: "/a", RevAt: -1, If: -2},
	} {
		if _, err := db.Commit(t.Context(), put("/b", "x", 0), op); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	if revs, err := db.Commit(t.Context()); err != nil || len(revs) != 0 || revision(t, db) != 0 {
		t.Errorf("nothing to commit: %v, %v, revision %d", revs, err, revision(t, db))
	}
}

// FuzzKeys stores arbitrary keys, deletes one, and finds each by itself and by its prefixes, also from the file.
func FuzzKeys(f *testing.F) {
	f.Add("/a", "/a/b", "/a\x00")
	f.Add("\xff", "\xff\xff", "a\xffb")
	f.Add("é", "e\u0301", "'; DROP TABLE log; --")
	f.Add("%", "_", "*")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		if a == "" || b == "" || c == "" || a == b || b == c || a == c {
			return
		}
		path := filepath.Join(t.TempDir(), "hub.db")
		cfg := sqlite.Config{Path: path}
		db := start(t, sqlite.LimitMemory(cfg, 0))
		if _, err := db.Commit(t.Context(), put(a, "a", 0), put(b, "b", 0), put(c, "c", 0), put(a, "a2", 1)); err != nil {
			t.Fatal(err)
		}
		if _, err := db.Commit(t.Context(), sqlstore.Op{Key: c, Delete: true, RevAt: -1, If: 3}); err != nil {
			t.Fatal(err)
		}
		check := func(db *sqlite.DB) {
			for key, want := range map[string]string{a: "a2", b: "b"} {
				if e, ok := get(t, db, key); !ok || string(e.Value) != want || e.Key != key {
					t.Fatalf("get %q: %+v", key, e)
				}
			}
			for _, prefix := range []string{"", a, b, c, a[:1], b[:len(b)/2]} {
				now, then := 0, 0
				for _, key := range []string{a, b, c} {
					if strings.HasPrefix(key, prefix) {
						then++
						if key != c {
							now++
						}
					}
				}
				for at, want := range map[sqlstore.Revision]int{0: now, 3: then, 4: then} {
					if p, err := db.List(t.Context(), prefix, "", 0, at); err != nil || len(p.Entries) != want {
						t.Fatalf("list %q at %d: %d entries, want %d (%v)", prefix, at, len(p.Entries), want, err)
					}
				}
			}
		}
		check(db)
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		check(start(t, cfg))
	})
}
