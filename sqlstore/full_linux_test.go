package sqlstore_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"petrel.dev/petrel/sqlstore"
)

// TestDiskFull fills a real, small file system. A commit that does not fit says so and leaves nothing; reading goes on;
// once there is room, so does writing.
func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=4m"); err != nil {
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
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 2<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "hub.db")
	db, err := sqlstore.Open(t.Context(), sqlstore.Config{Path: path})
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
	if db.Revision() != sqlstore.Revision(stored) || db.Len() != stored {
		t.Errorf("%d objects at revision %d, %d were acknowledged", db.Len(), db.Revision(), stored)
	}
	if _, ok := db.Get(fmt.Sprintf("/key/%d", stored)); ok {
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
	if db, err = sqlstore.Open(t.Context(), sqlstore.Config{Path: path}); err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if db.Len() != stored+1 {
		t.Errorf("%d objects after a restart, want %d", db.Len(), stored+1)
	}
}
