package sqlite_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"testing"

	"petrel.dev/petrel/sqlstore"
	"petrel.dev/petrel/sqlstore/sqlite"
	"petrel.dev/petrel/sqlstore/storetest"
)

// start opens a store and runs it until the test ends.
func start(t testing.TB, cfg sqlite.Config) *sqlite.DB {
	t.Helper()
	if cfg.Path == "" {
		cfg.Path = filepath.Join(t.TempDir(), "hub.db")
	}
	db, err := sqlite.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	go db.Run(context.Background())
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return db
}

func get(t testing.TB, db *sqlite.DB, key string) (sqlstore.Entry, bool) {
	t.Helper()
	e, ok, err := db.Get(context.Background(), key)
	if err != nil {
		t.Errorf("get %s: %v", key, err)
	}
	return e, ok
}

func revision(t testing.TB, db *sqlite.DB) sqlstore.Revision {
	t.Helper()
	rev, err := db.Revision(context.Background())
	if err != nil {
		t.Errorf("revision: %v", err)
	}
	return rev
}

// engine makes stores for storetest, with at most so many changes in memory.
type engine struct{ inMemory int }

func (e engine) Open(t testing.TB) storetest.Store {
	return start(t, sqlite.LimitMemory(sqlite.Config{}, e.inMemory))
}

func (e engine) OpenLimited(t testing.TB, limit int64) storetest.Store {
	cfg := sqlite.Config{MaxBytes: limit, Expendable: []string{storetest.ExpendablePrefix}}
	return start(t, sqlite.LimitMemory(cfg, e.inMemory))
}

func (engine) OpenShared(t testing.TB, limit int64) storetest.Store {
	return start(t, sqlite.Config{MaxBytes: limit, Tenant: storetest.TenantOf})
}

func (engine) NewPlace(t testing.TB) storetest.Place { return place{t.TempDir()} }

// killable is an engine of which storetest kills processes.
type killable struct{ engine }

func (killable) OpenIn(ctx context.Context, dir string) (storetest.Store, error) {
	db, err := sqlite.Open(ctx, sqlite.Config{Path: filepath.Join(dir, "hub.db"), MaxHistory: 300}) // proves that there is no gap
	if err != nil {
		return nil, err
	}
	go db.Run(context.Background())
	return db, nil
}

func TestMain(m *testing.M) { storetest.Main(m, killable{}) }

// TestConformance runs with history in memory, and with all of it read from the file.
func TestConformance(t *testing.T) {
	t.Run("memory", func(t *testing.T) { storetest.Run(t, killable{engine{4096}}) })
	for _, n := range []int{0, 3} {
		t.Run(fmt.Sprintf("file beyond %d", n), func(t *testing.T) { storetest.Run(t, engine{n}) })
	}
}

func put(key, value string, cond sqlstore.Revision) sqlstore.Op {
	return sqlstore.Op{Key: key, Value: []byte(value), RevAt: -1, If: cond}
}

// TestNoConflictWithWhatWasNotWritten has two create one key in one batch. The second conflicts with the first; when the disk
// takes neither, there is nothing to conflict with, and both get the disk's error.
func TestNoConflictWithWhatWasNotWritten(t *testing.T) {
	db, err := sqlite.Open(t.Context(), sqlite.Config{Path: filepath.Join(t.TempDir(), "hub.db")})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.Exec("PRAGMA query_only = 1"); err != nil {
		t.Fatal(err)
	}
	answers := make(chan error)
	for range 2 {
		go func() {
			_, err := db.Commit(t.Context(), put("/a", "1", 0))
			answers <- err
		}()
	}
	for db.Waiting() < 2 {
		runtime.Gosched()
	}
	go db.Run(t.Context())
	for range 2 {
		var conflict *sqlstore.ConflictError
		if err := <-answers; err == nil || errors.As(err, &conflict) {
			t.Errorf("answered %v, want the disk's error", err)
		}
	}
	if revision(t, db) != 0 || db.Len() != 0 {
		t.Errorf("%d objects at revision %d", db.Len(), revision(t, db))
	}
	if living, _ := db.Usage(); living != 0 {
		t.Errorf("a store without objects counts %d bytes of them", living)
	}
}

func TestReopenKeepsEverything(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hub.db")
	db, err := sqlite.Open(t.Context(), sqlite.Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	go db.Run(t.Context())
	op := sqlstore.Op{Key: "/a", Value: []byte(`{"rv":""}`), RevAt: 7, If: 0}
	if _, err := db.Commit(t.Context(), op, put("/b", "1", 0)); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Commit(t.Context(), put("/b", "2", 2), sqlstore.Op{Key: "/a", Delete: true, RevAt: -1, If: 1}); err != nil {
		t.Fatal(err)
	}
	w, err := db.Watch(t.Context(), "/", 0)
	if err != nil {
		t.Fatal(err)
	}
	ev, err := w.Next(t.Context())
	if err != nil || len(ev) != 4 || string(ev[0].Value) != `{"rv":"1"}` || string(ev[3].Prev) != `{"rv":"1"}` {
		t.Fatalf("%v %+v", err, ev)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db = start(t, sqlite.Config{Path: path})
	if e, ok := get(t, db, "/b"); !ok || string(e.Value) != "2" || e.Rev != 3 || e.Created != 2 {
		t.Fatalf("%+v %v", e, ok)
	}
	p, err := db.List(t.Context(), "/", "", 0, 2)
	if err != nil || len(p.Entries) != 2 || string(p.Entries[1].Value) != "1" {
		t.Fatalf("%v %+v", err, p)
	}
	w, err = db.Watch(t.Context(), "/", 2)
	if err != nil {
		t.Fatal(err)
	}
	if ev, err := w.Next(t.Context()); err != nil || len(ev) != 2 || string(ev[0].Prev) != "1" || !ev[1].Deleted {
		t.Fatalf("%v %+v", err, ev)
	}
	if _, err := db.Backup(t.Context(), path+".bak"); err != nil {
		t.Fatal(err)
	}
	if err := sqlite.Verify(t.Context(), path+".bak"); err != nil {
		t.Fatal(err)
	}
	if err := db.Compact(t.Context(), 4); err != nil {
		t.Fatal(err)
	}
}

// A lone writer commits by itself, and leaves the upkeep that is due to Run; the next commit comes after it.
func TestLoneCommits(t *testing.T) {
	db := start(t, sqlite.Config{MaxHistory: 100})
	for i := range 5000 {
		if _, err := db.Commit(t.Context(), sqlstore.Op{Key: "/key", Value: []byte("v"), RevAt: -1, If: sqlstore.Revision(i)}); err != nil {
			t.Fatal(err)
		}
	}
	if !db.Quiet() {
		t.Error("a lone writer goes by the committer")
	}
	if rev, err := db.Revision(t.Context()); err != nil || rev != 5000 {
		t.Errorf("at revision %d, %v", rev, err)
	}
	if err := db.Compact(t.Context(), 0); err != nil { // waits for the last upkeep
		t.Error(err)
	}
	if got := db.Compacted(); got < 3000 {
		t.Errorf("history is compacted up to %d only", got)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := db.Commit(ended, put("/other", "v", 0)); !errors.Is(err, context.Canceled) {
		t.Errorf("a commit that nobody waits for: %v", err)
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
	if _, err := db.Commit(t.Context(), put("/other", "v", 0)); !errors.Is(err, sqlstore.ErrClosed) {
		t.Errorf("a commit after the end: %v", err)
	}
}
