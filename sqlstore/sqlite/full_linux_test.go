package sqlite_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"petrel.dev/petrel/sqlstore"
	"petrel.dev/petrel/sqlstore/sqlite"
)

// smallDisk mounts a file system of its own.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("mount: %v", err)
		}
		t.Skipf("needs root to mount a small file system: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return dir
}

// TestDiskFull fills a real, small file system. A commit that does not fit says so and leaves nothing; reading goes on;
// once there is room, so does writing.
func TestDiskFull(t *testing.T) {
	dir := smallDisk(t, "4m")
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 2<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "hub.db")
	db, err := sqlite.Open(t.Context(), sqlite.Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	go db.Run(t.Context())
	v, stored := value(10_000), 0
	for ; err == nil && stored < 1000; stored++ {
		_, err = db.Commit(t.Context(), sqlstore.Op{Key: fmt.Sprintf("/key/%d", stored), Value: v, RevAt: -1})
	}
	stored-- // the last one failed
	if err == nil {
		t.Fatal("10 MB went into 2 MB")
	}
	t.Logf("after %d objects: %v", stored, err)
	if revision(t, db) != sqlstore.Revision(stored) || db.Len() != stored {
		t.Errorf("%d objects at revision %d, %d were acknowledged", db.Len(), revision(t, db), stored)
	}
	if _, ok := get(t, db, fmt.Sprintf("/key/%d", stored)); ok {
		t.Error("the failed commit shows")
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	revs, err := db.Commit(t.Context(), put("/after", "x", 0))
	if err != nil {
		t.Fatalf("there is room again: %v", err)
	}
	if revs[0] != sqlstore.Revision(stored)+1 {
		t.Errorf("revision %d after %d objects", revs[0], stored)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if db, err = sqlite.Open(t.Context(), sqlite.Config{Path: path}); err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if db.Len() != stored+1 {
		t.Errorf("%d objects after a restart, want %d", db.Len(), stored+1)
	}
}

// open opens the store in dir and runs it; close ends it.
func open(t *testing.T, cfg sqlite.Config) (db *sqlite.DB, end func()) {
	t.Helper()
	db, err := sqlite.Open(t.Context(), cfg)
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

// TestHistoryThatFillsTheDiskGoes fills the disk with superseded values alone. The store gets out by itself, at once, and a start
// on such a disk works too.
func TestHistoryThatFillsTheDiskGoes(t *testing.T) {
	dir := smallDisk(t, "64m")
	cfg := sqlite.Config{Path: filepath.Join(dir, "hub.db"), MaxHistoryBytes: 1 << 40}
	patch := func(db *sqlite.DB, n int) {
		t.Helper()
		for i := range n {
			if _, err := db.Commit(t.Context(), sqlstore.Op{Key: "/big", Value: value(1 << 20), RevAt: -1, If: sqlstore.AnyRevision}); err != nil {
				t.Fatalf("change %d of 1 MiB: %v", i, err)
			}
		}
	}
	db, end := open(t, cfg)
	patch(db, 150)
	if err := db.Health(); err != nil {
		t.Errorf("health: %v", err)
	}
	if db.Compacted() == 0 {
		t.Error("150 MiB of history are kept on 64")
	}
	end()
	db, end = open(t, cfg)
	defer end()
	patch(db, 100)
	if err := db.Health(); err != nil {
		t.Errorf("health after a restart: %v", err)
	}
}

// TestObjectsThatFillTheDiskCanBeDeleted fills the disk with what exists. Growth is refused with the reason, Health says so,
// deletions with their last states go on, also after a restart on the full disk, and then all is well again.
func TestObjectsThatFillTheDiskCanBeDeleted(t *testing.T) {
	for name, restart := range map[string]bool{"at once": false, "after a restart": true} {
		t.Run(name, func(t *testing.T) {
			dir := smallDisk(t, "24m")
			cfg := sqlite.Config{Path: filepath.Join(dir, "hub.db")}
			db, end := open(t, cfg)
			v, n := value(100<<10), 0
			var full *sqlstore.FullError
			for ; n < 1000; n++ {
				if _, err := db.Commit(t.Context(), sqlstore.Op{Key: fmt.Sprintf("/key/%d", n), Value: v, RevAt: -1}); err != nil {
					if !errors.As(err, &full) || full.Limit != 0 {
						t.Fatalf("object %d: %v", n, err)
					}
					break
				}
			}
			if n < 50 || n == 1000 {
				t.Fatalf("%d objects of 100 KiB went on 24 MiB", n)
			}
			// Another takes what is left, to the last byte.
			hog, err := os.Create(filepath.Join(dir, "hog"))
			if err != nil {
				t.Fatal(err)
			}
			for size := 1 << 20; size >= 512; {
				if _, err := hog.Write(make([]byte, size)); err != nil {
					size /= 2
				}
			}
			hog.Close()
			if _, err := db.Commit(t.Context(), put("/more", string(v), 0)); !errors.As(err, &full) {
				t.Errorf("one more: %v", err)
			}
			if restart {
				end()
				db, end = open(t, cfg)
			}
			defer func() { end() }()
			if _, err := db.Commit(t.Context(), put("/more", string(v), 0)); !errors.As(err, &full) {
				t.Errorf("one more: %v", err)
			}
			if err := db.Compact(t.Context(), 0); err != nil { // waits for the last upkeep
				t.Error(err)
			}
			if err := db.Health(); !errors.As(err, &full) {
				t.Errorf("health: %v", err)
			}
			for i := range n {
				if _, err := db.Commit(t.Context(), sqlstore.Op{Key: fmt.Sprintf("/key/%d", i), Delete: true, Value: v, RevAt: -1, If: sqlstore.AnyRevision}); err != nil {
					t.Fatalf("deletion %d of %d: %v", i, n, err)
				}
			}
			if db.Len() != 0 {
				t.Errorf("%d objects are left", db.Len())
			}
			if err := os.Remove(hog.Name()); err != nil {
				t.Fatal(err)
			}
			free, total, _ := sqlite.DiskSpace(dir)
			t.Logf("%d of %d bytes free; database %d, WAL %d, reserve %d", free, total, size(t, cfg.Path), size(t, cfg.Path+"-wal"), size(t, cfg.Path+".reserve"))
			for i := range n {
				if _, err := db.Commit(t.Context(), sqlstore.Op{Key: fmt.Sprintf("/new/%d", i), Value: v, RevAt: -1}); err != nil {
					t.Fatalf("new object %d of %d: %v", i, n, err)
				}
			}
			if err := db.Health(); err != nil {
				t.Errorf("health at the end: %v", err)
			}
		})
	}
}
