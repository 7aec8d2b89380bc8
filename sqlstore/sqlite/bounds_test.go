package sqlite_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"

	"petrel.dev/petrel/sqlstore"
	"petrel.dev/petrel/sqlstore/sqlite"
	"petrel.dev/petrel/sqlstore/storetest"
)

// heap is the live heap in bytes.
func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestBigObjectChurnIsBounded replaces one object of 1 MiB many times, while watchers do not read: neither file nor memory may
// grow with the number of changes.
func TestBigObjectChurnIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hub.db")
	db := start(t, sqlite.Config{Path: path})
	for range 20 {
		w, err := db.Watch(t.Context(), "/", 0)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
	}
	before := heap()
	for range 100 {
		if _, err := db.Commit(t.Context(), sqlstore.Op{Key: "/big", Value: value(1 << 20), RevAt: -1, If: sqlstore.AnyRevision}); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Compact(t.Context(), 0); err != nil { // waits for the last upkeep
		t.Fatal(err)
	}
	if grown := heap() - before; grown > 20<<20 {
		t.Errorf("100 changes of 1 MiB left %d MiB in memory", grown>>20)
	}
	if n := size(t, path) + size(t, path+"-wal"); n > 60<<20 {
		t.Errorf("100 changes of 1 MiB left %d MiB in the file", n>>20)
	}
}

// TestSlowWatcherGetsPortions has a watcher come late: it gets what it missed in portions of bounded bytes, in order, each up to
// a commit boundary, also from the file.
func TestSlowWatcherGetsPortions(t *testing.T) {
	for _, memory := range []int{4096, 0} {
		t.Run(fmt.Sprintf("%d in memory", memory), func(t *testing.T) {
			db := start(t, sqlite.LimitMemory(sqlite.Config{}, memory))
			w, err := db.Watch(t.Context(), "/", 0)
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			v := value(200 << 10)
			for i := range 30 {
				ops := []sqlstore.Op{
					{Key: fmt.Sprintf("/a/%d", i), Value: v, RevAt: -1},
					{Key: fmt.Sprintf("/b/%d", i), Value: v, RevAt: -1},
				}
				if _, err := db.Commit(t.Context(), ops...); err != nil {
					t.Fatal(err)
				}
			}
			var last sqlstore.Revision
			for last < 60 {
				events, err := w.Next(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if len(events)%2 != 0 || len(events) > 8 {
					t.Errorf("%d events of 200 KiB at once", len(events))
				}
				for _, e := range events {
					if e.Rev != last+1 {
						t.Fatalf("revision %d follows %d", e.Rev, last)
					}
					last = e.Rev
				}
				if w.Revision() != last {
					t.Errorf("watcher at %d after revision %d", w.Revision(), last)
				}
			}
		})
	}
}

// TestStalledWatcherListsAgain has a watcher not read: what it has missed is not kept for it.
func TestStalledWatcherListsAgain(t *testing.T) {
	db := start(t, sqlite.Config{MaxHistoryBytes: 1 << 20})
	w, err := db.Watch(t.Context(), "/", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for range 50 {
		if _, err := db.Commit(t.Context(), sqlstore.Op{Key: "/big", Value: value(1 << 20), RevAt: -1, If: sqlstore.AnyRevision}); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Compact(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	var compacted *sqlstore.CompactedError
	if _, err := w.Next(t.Context()); !errors.As(err, &compacted) {
		t.Errorf("next: %v, want a *CompactedError", err)
	}
}

// TestHistoryBytesSurviveRestart leaves more history than the bound: it goes when the next store runs.
func TestHistoryBytesSurviveRestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hub.db")
	write := func(db *sqlite.DB, n int) {
		t.Helper()
		for range n {
			if _, err := db.Commit(t.Context(), sqlstore.Op{Key: "/big", Value: value(100 << 10), RevAt: -1, If: sqlstore.AnyRevision}); err != nil {
				t.Fatal(err)
			}
		}
	}
	db, err := sqlite.Open(t.Context(), sqlite.Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	go db.Run(t.Context())
	write(db, 50)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db = start(t, sqlite.Config{Path: path, MaxHistoryBytes: 1 << 20})
	if err := db.Compact(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if db.Compacted() != revision(t, db) {
		t.Errorf("5 MB of history are kept from %d to %d", db.Compacted(), revision(t, db))
	}
	write(db, 50)
	if err := db.Compact(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if kept := revision(t, db) - db.Compacted(); kept < 5 || kept > 12 {
		t.Errorf("%d revisions of 100 KiB are kept, want about 10", kept)
	}
}

// TestHealth counts the changes of health: one when the store is full, one when it is not any more.
func TestHealth(t *testing.T) {
	var changes atomic.Int32
	db := start(t, sqlite.Config{MaxBytes: 9_500, OnHealth: func(error) { changes.Add(1) }})
	if _, err := db.Commit(t.Context(), sqlstore.Op{Key: "/a", Value: value(9000), RevAt: -1}); err != nil {
		t.Fatal(err)
	}
	if err := db.Health(); err != nil {
		t.Error(err)
	}
	var full *sqlstore.FullError
	for range 3 {
		if _, err := db.Commit(t.Context(), put("/b", string(value(2000)), 0)); !errors.As(err, &full) || full.Limit != 9_500 {
			t.Fatalf("commit: %v", err)
		}
	}
	if err := db.Compact(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if err := db.Health(); !errors.As(err, &full) {
		t.Errorf("health: %v", err)
	}
	if _, err := db.Commit(t.Context(), sqlstore.Op{Key: "/a", Delete: true, RevAt: -1, If: sqlstore.AnyRevision}); err != nil {
		t.Fatal(err)
	}
	if err := db.Compact(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if err := db.Health(); err != nil {
		t.Errorf("health: %v", err)
	}
	if n := changes.Load(); n != 2 {
		t.Errorf("health changed %d times, want twice", n)
	}
	if living, limit := db.Usage(); living != 0 || limit != 9_500 {
		t.Errorf("usage %d of %d", living, limit)
	}
}

// TestUsageDoesNotDrift checks that what the store believes to hold is what it finds when it is opened again, the digits of
// revisions included, however often objects changed; and so for each tenant.
func TestUsageDoesNotDrift(t *testing.T) {
	const limit = 64 << 10
	cfg := sqlite.Config{Path: filepath.Join(t.TempDir(), "hub.db"), MaxBytes: limit, Tenant: storetest.TenantOf}
	key := func(i int) string { return fmt.Sprintf("/a/%d", i) }
	db := start(t, cfg)
	for i := range 2000 {
		if _, err := db.Commit(t.Context(), sqlstore.Op{Key: key(i % 5), Value: []byte("{}"), RevAt: 1, If: sqlstore.AnyRevision}); err != nil {
			t.Fatal(err)
		}
		if i%100 == 99 {
			if _, err := db.Commit(t.Context(), sqlstore.Op{Key: key(4), Delete: true, Value: []byte("{}"), RevAt: 1, If: sqlstore.AnyRevision}); err != nil {
				t.Fatal(err)
			}
		}
	}
	share := func(db *sqlite.DB) int64 {
		t.Helper()
		_, err := db.Commit(t.Context(), sqlstore.Op{Key: "/a/large", Value: make([]byte, limit-4000), RevAt: -1, If: 0})
		full := (*sqlstore.FullError)(nil)
		if !errors.As(err, &full) || full.Tenant != "a" {
			t.Fatalf("a large object: %v", err)
		}
		return full.Bytes
	}
	before, _ := db.Usage()
	mine := share(db)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db = start(t, cfg)
	if after, _ := db.Usage(); after != before {
		t.Errorf("%d bytes before it was opened again, %d after", before, after)
	}
	if again := share(db); again != mine || again != before {
		t.Errorf("the tenant had %d of %d bytes, and %d after it was opened again", mine, before, again)
	}
}
