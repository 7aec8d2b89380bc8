package sealed_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"petrel.dev/petrel/internal/seal"
	"petrel.dev/petrel/internal/seal/sealtest"
	"petrel.dev/petrel/sqlstore"
	"petrel.dev/petrel/sqlstore/sealed"
	"petrel.dev/petrel/sqlstore/sqlite"
	"petrel.dev/petrel/sqlstore/storetest"
)

// open opens a store in dir with the keys of these letters; none for "".
func open(t testing.TB, dir, letters string, prefixes ...string) (*sealed.Store, *sqlite.DB, error) {
	t.Helper()
	db, err := sqlite.Open(t.Context(), sqlite.Config{Path: filepath.Join(dir, "hub.db")})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- db.Run(context.WithoutCancel(t.Context())) }()
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
		<-done
	})
	var k *seal.Keys
	if letters != "" {
		k = sealtest.Keys(t, letters)
	}
	s, err := sealed.Open(t.Context(), db, k, prefixes...)
	return s, db, err
}

// whole is a sealed store with what the suite asks of an engine beside Store.
type whole struct {
	*sealed.Store
	db *sqlite.DB
}

func (w whole) History() string                                         { return w.db.History() }
func (w whole) Compact(ctx context.Context, to sqlstore.Revision) error { return w.db.Compact(ctx, to) }
func (w whole) Close() error                                            { return w.db.Close() }

// engine makes stores in which what lies below prefix is encrypted.
type engine struct{ prefix string }

func (e engine) Open(t testing.TB) storetest.Store {
	s, db, err := open(t, t.TempDir(), "k", e.prefix)
	if err != nil {
		t.Fatal(err)
	}
	return whole{s, db}
}

// TestConformance checks that nobody above sees that values are encrypted, all of them or some.
func TestConformance(t *testing.T) {
	for name, prefix := range map[string]string{"all": "/", "some": "/a"} {
		t.Run(name, func(t *testing.T) { storetest.Run(t, engine{prefix}) })
	}
}

func commit(t *testing.T, s sqlstore.Store, ops ...sqlstore.Op) {
	t.Helper()
	if _, err := s.Commit(t.Context(), ops...); err != nil {
		t.Fatal(err)
	}
}

// put is an object whose revision goes between the brackets.
func put(key, value string) sqlstore.Op {
	v := value + " []"
	return sqlstore.Op{Key: key, Value: []byte(v), RevAt: len(v) - 1, If: sqlstore.AnyRevision}
}

func get(t *testing.T, s sqlstore.Store, key string) string {
	t.Helper()
	e, ok, err := s.Get(t.Context(), key)
	if err != nil || !ok {
		t.Fatalf("get %s: %v, %v", key, ok, err)
	}
	return string(e.Value)
}

// encode takes the revision out again.
func encode(_ string, value []byte) ([]byte, int, error) {
	at := bytes.LastIndexByte(value, '[') + 1
	return append(bytes.Clone(value[:at]), ']'), at, nil
}

const secret = "the secret that must not be on the disk"

// TestDiskHoldsCipherText covers file, history, log of the file and backups; what is not below the prefix stays readable.
func TestDiskHoldsCipherText(t *testing.T) {
	dir := t.TempDir()
	s, db, err := open(t, dir, "k", "/core/secrets/")
	if err != nil {
		t.Fatal(err)
	}
	commit(t, s, put("/core/secrets/a", secret), put("/core/configmaps/a", "open"))
	commit(t, s, put("/core/secrets/a", secret+" 2"))
	commit(t, s, put("/core/secrets/b", secret))
	commit(t, s, sqlstore.Op{Key: "/core/secrets/b", Delete: true, Value: []byte(secret), RevAt: -1, If: sqlstore.AnyRevision})
	if got := get(t, s, "/core/secrets/a"); got != secret+" 2 [3]" {
		t.Errorf("read %q", got)
	}
	if _, err := db.Backup(t.Context(), filepath.Join(dir, "backup.db")); err != nil {
		t.Fatal(err)
	}
	open := 0
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if bytes.Contains(b, []byte(secret[:12])) {
			t.Errorf("%s holds the secret in clear", filepath.Base(path))
		}
		if bytes.Contains(b, []byte("open [2]")) {
			open++
		}
		return err
	})
	if err != nil || open < 2 {
		t.Errorf("what is not secret is readable in %d files: %v", open, err)
	}
}

// TestKeysAreNeeded checks that a store with encrypted values does not open without their keys, and names them.
func TestKeysAreNeeded(t *testing.T) {
	dir := t.TempDir()
	t.Run("write", func(t *testing.T) {
		s, _, err := open(t, dir, "k", "/s/")
		if err != nil {
			t.Fatal(err)
		}
		commit(t, s, put("/s/a", secret), put("/s/b", secret))
	})
	for letters, ok := range map[string]bool{"": false, "x": false, "xk": true, "k": true} {
		t.Run("keys "+letters, func(t *testing.T) {
			_, _, err := open(t, dir, letters, "/s/")
			var unknown *seal.UnknownKeyError
			if ok && err != nil || !ok && (!errors.As(err, &unknown) || unknown.ID != sealtest.Keys(t, "k").First() || !strings.Contains(err.Error(), unknown.ID.String())) {
				t.Errorf("open: %v", err)
			}
		})
	}
	t.Run("moved", func(t *testing.T) {
		s, db, err := open(t, dir, "k", "/s/")
		if err != nil {
			t.Fatal(err)
		}
		e, _, _ := db.Get(t.Context(), "/s/a")
		commit(t, db, sqlstore.Op{Key: "/s/b", Value: bytes.Clone(e.Value), RevAt: -1, If: sqlstore.AnyRevision})
		var forged *seal.ForgedError
		if _, _, err := s.Get(t.Context(), "/s/b"); !errors.As(err, &forged) {
			t.Errorf("one object's value opens as another's: %v", err)
		}
	})
}

// TestTurningOnAndRotating checks that values in clear and under older keys are read, and written again with the first key,
// with a revision of their own; afterwards the older keys are not needed.
func TestTurningOnAndRotating(t *testing.T) {
	dir := t.TempDir()
	t.Run("in clear", func(t *testing.T) {
		s, _, err := open(t, dir, "", "/s/")
		if err != nil {
			t.Fatal(err)
		}
		commit(t, s, put("/s/a", "A"), put("/s/b", "B"), put("/t", "T"))
	})
	for _, letters := range []string{"k", "nk"} {
		t.Run("keys "+letters, func(t *testing.T) {
			s, _, err := open(t, dir, letters, "/s/")
			if err != nil {
				t.Fatal(err)
			}
			before, _ := s.Revision(t.Context())
			w, err := s.Watch(t.Context(), "/", before)
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			if got := get(t, s, "/s/a"); !strings.HasPrefix(got, "A [") {
				t.Errorf("before: %q", got)
			}
			if n, err := s.Reseal(t.Context(), encode); n != 2 || err != nil {
				t.Errorf("%d written again, %v", n, err)
			}
			if n, err := s.Reseal(t.Context(), encode); n != 0 || err != nil {
				t.Errorf("the second time %d, %v", n, err)
			}
			events, err := w.Next(t.Context())
			if err != nil || !strings.HasPrefix(string(events[0].Prev), "A [") || !strings.HasPrefix(string(events[0].Value), "A [") || bytes.Equal(events[0].Prev, events[0].Value) {
				t.Errorf("seen: %+v, %v", events, err)
			}
		})
	}
	t.Run("new key alone", func(t *testing.T) {
		s, _, err := open(t, dir, "n", "/s/")
		if err != nil {
			t.Fatal(err)
		}
		for key, want := range map[string]string{"/s/a": "A [6]", "/s/b": "B [7]", "/t": "T [3]"} {
			if got := get(t, s, key); got != want {
				t.Errorf("%s is %q, want %q", key, got, want)
			}
		}
		// History under the key that is gone: the client lists again.
		var gone *sqlstore.CompactedError
		if _, err := s.List(t.Context(), "/s/", "", 0, 5); !errors.As(err, &gone) {
			t.Errorf("list of the past: %v", err)
		}
		w, err := s.Watch(t.Context(), "/s/", 3)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		if _, err := w.Next(t.Context()); !errors.As(err, &gone) {
			t.Errorf("watch of the past: %v", err)
		}
	})
}

// slow is an engine whose next commit waits until it may go on.
type slow struct {
	sqlstore.Store
	at, on chan struct{} // at is closed when the commit has come, on lets it go on
}

func (s *slow) Commit(ctx context.Context, ops ...sqlstore.Op) ([]sqlstore.Revision, error) {
	close(s.at)
	<-s.on
	return s.Store.Commit(ctx, ops...)
}

// TestSetKeysWaitsForWriters checks that a value which was encrypted before the keys were replaced, and is stored after it, is under the
// new key in the end: otherwise it would be lost with the older one.
func TestSetKeysWaitsForWriters(t *testing.T) {
	_, db, err := open(t, t.TempDir(), "k", "/s/")
	if err != nil {
		t.Fatal(err)
	}
	inner := &slow{Store: db, at: make(chan struct{}), on: make(chan struct{})}
	s, err := sealed.Open(t.Context(), inner, sealtest.Keys(t, "k"), "/s/")
	if err != nil {
		t.Fatal(err)
	}
	written, replaced := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := s.Commit(t.Context(), put("/s/a", "A"))
		written <- err
	}()
	<-inner.at
	go func() { replaced <- s.SetKeys(t.Context(), sealtest.Keys(t, "nk")) }()
	select {
	case err := <-replaced:
		t.Fatalf("the keys were replaced while a write was under way: %v", err)
	case <-time.After(50 * time.Millisecond): // a SetKeys that does not wait is done long before
	}
	inner.at = make(chan struct{}) // Reseal's commit comes too
	close(inner.on)
	if err := errors.Join(<-written, <-replaced); err != nil {
		t.Fatal(err)
	}
	if n, err := s.Reseal(t.Context(), encode); n != 1 || err != nil {
		t.Errorf("%d written again, %v", n, err)
	}
	if err := s.SetKeys(t.Context(), sealtest.Keys(t, "n")); err != nil {
		t.Errorf("the older key is still needed: %v", err)
	}
}

// TestSetKeys checks that keys are replaced in a store that is open, and only by keys that open all that is there.
func TestSetKeys(t *testing.T) {
	s, _, err := open(t, t.TempDir(), "k", "/s/")
	if err != nil {
		t.Fatal(err)
	}
	commit(t, s, put("/s/a", "A"))
	w, err := s.Watch(t.Context(), "/", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	set := func(letters string) error { return s.SetKeys(t.Context(), sealtest.Keys(t, letters)) }
	if err := set("n"); err == nil || !strings.Contains(err.Error(), sealtest.Keys(t, "k").First().String()) {
		t.Errorf("without the key that seals: %v", err)
	}
	if err := set(""); err == nil {
		t.Error("turned off")
	}
	if err := set("nk"); err != nil {
		t.Fatal(err)
	}
	commit(t, s, put("/s/b", "B"))
	var locked *sealed.LockedError
	if err := set("n"); !errors.As(err, &locked) || locked.Key != "/s/a" {
		t.Errorf("what is under the older key would be lost: %v", err)
	}
	if n, err := s.Reseal(t.Context(), encode); n != 1 || err != nil {
		t.Errorf("%d written again, %v", n, err)
	}
	if err := set("n"); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{"/s/a": "A [3]", "/s/b": "B [2]"} {
		if got := get(t, s, key); got != want {
			t.Errorf("%s is %q, want %q", key, got, want)
		}
	}
}

// TestListSealed checks that a list may leave values encrypted, that they open later even when their key has been taken away since, and that
// a value whose key is not there fails at once.
func TestListSealed(t *testing.T) {
	s, db, err := open(t, t.TempDir(), "k", "/s/")
	if err != nil {
		t.Fatal(err)
	}
	commit(t, s, put("/s/a", secret), put("/s/b", "B"), put("/t/a", "T"))
	p, opener, err := sqlstore.ListSealed(t.Context(), s, "/s/", "", 0, 0)
	if err != nil || len(p.Entries) != 2 || opener == nil || bytes.Contains(p.Entries[0].Value, []byte(secret)) {
		t.Fatalf("%+v, %v", p, err)
	}
	if _, opener, err := sqlstore.ListSealed(t.Context(), s, "/t/", "", 0, 0); opener != nil || err != nil {
		t.Errorf("values in clear have an opener: %v", err)
	}
	if p, opener, err := sqlstore.ListSealed(t.Context(), db, "/s/", "", 0, 0); opener != nil || err != nil || len(p.Entries) != 2 {
		t.Errorf("an engine has an opener: %v", err)
	}
	if err := s.SetKeys(t.Context(), sealtest.Keys(t, "nk")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Reseal(t.Context(), encode); err != nil {
		t.Fatal(err)
	}
	if err := s.SetKeys(t.Context(), sealtest.Keys(t, "n")); err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{secret + " [1]", "B [2]"} {
		for range 2 {
			if got, err := opener(p.Entries[i]); err != nil || string(got) != want {
				t.Errorf("%q, %v", got, err)
			}
		}
	}
	forged := p.Entries[0]
	forged.Key = "/s/b"
	var locked *sealed.LockedError
	if got, err := opener(forged); !errors.As(err, &locked) {
		t.Errorf("one object's value opens as another's: %q, %v", got, err)
	}
	var gone *sqlstore.CompactedError
	if _, _, err := sqlstore.ListSealed(t.Context(), s, "/s/", "", 0, 3); !errors.As(err, &gone) {
		t.Errorf("the past under the key that is gone: %v", err)
	}
}
