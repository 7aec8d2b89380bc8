package storetest

import (
	"fmt"
	"testing"

	"petrel.dev/petrel/sqlstore"
)

// Place is where an engine keeps one store. It may also be a Restorer.
type Place interface {
	// Open opens the store, making it the first time; end closes it.
	Open(t testing.TB) (s Store, end func())
}

// Restorer is a Place whose store can be put back to what it was.
type Restorer interface {
	// Backup makes a backup of s, which is open, by the engine's own means.
	Backup(t testing.TB, s Store)
	// Restore puts that backup in the closed store's place.
	Restore(t testing.TB)
}

// runDurable checks what a store is when it is opened again.
func runDurable(t *testing.T, make func(t testing.TB) Place) {
	t.Run("everything is there", func(t *testing.T) { testReopen(t, make(t)) })
	runHistory(t, make)
}

// testReopen opens a store again and again: keys, revisions and kept history go on where they were.
func testReopen(t *testing.T, p Place) {
	last := sqlstore.Revision(0)
	for life := range 3 {
		s, end := p.Open(t)
		if got := revision(t, s); got != last {
			t.Errorf("life %d begins at revision %d, want %d", life, got, last)
		}
		if life > 0 {
			if e, ok := get(t, s, "/kept"); !ok || string(e.Value) != fmt.Sprint(life-1) || e.Rev != last-1 || e.Created != 1 {
				t.Errorf("life %d finds %+v, %v", life, e, ok)
			}
			if _, ok := get(t, s, "/gone"); ok {
				t.Errorf("life %d finds what was deleted", life)
			}
			if p, err := s.List(t.Context(), "/", "", 0, last-1); err != nil || len(p.Entries) != 2 {
				t.Errorf("life %d lists %d entries as of revision %d (%v), want 2", life, len(p.Entries), last-1, err)
			}
		}
		kept := sqlstore.Op{Key: "/kept", Value: fmt.Append(nil, life), RevAt: -1, If: sqlstore.AnyRevision}
		gone := sqlstore.Op{Key: "/gone", Value: []byte("x"), RevAt: -1}
		// "/gone" is made before "/kept" is written and deleted after it, but in the first life, where "/kept" is revision 1.
		first, second := gone, kept
		if life == 0 {
			first, second = kept, gone
		}
		revs, err := s.Commit(t.Context(), first, second)
		if err == nil && life == 0 {
			revs, err = s.Commit(t.Context(), kept)
		}
		if err == nil {
			revs, err = s.Commit(t.Context(), sqlstore.Op{Key: "/gone", Delete: true, RevAt: -1, If: sqlstore.AnyRevision})
		}
		if err != nil {
			t.Fatal(err)
		}
		last = revs[0]
		end()
	}
}

// runHistory checks when a store begins a new history: revisions are compared within one history only, so a store that may
// have gone back in time must have another name.
func runHistory(t *testing.T, make func(t testing.TB) Place) {
	write := func(t *testing.T, s Store) {
		t.Helper()
		if _, err := s.Commit(t.Context(), sqlstore.Op{Key: "/key", Value: []byte("x"), RevAt: -1, If: sqlstore.AnyRevision}); err != nil {
			t.Fatal(err)
		}
	}
	// life opens the store, writes once, and returns the history it had.
	life := func(t *testing.T, p Place, during func(Store)) string {
		t.Helper()
		s, end := p.Open(t)
		defer end()
		id := s.History()
		if id == "" {
			t.Error("a store without a history")
		}
		write(t, s)
		if during != nil {
			during(s)
		}
		if now := s.History(); now != id {
			t.Errorf("the history changed from %s to %s while the store was open", id, now)
		}
		return id
	}
	t.Run("two stores have two", func(t *testing.T) {
		if a, b := life(t, make(t), nil), life(t, make(t), nil); a == b {
			t.Errorf("both have history %s", a)
		}
	})
	t.Run("a restart keeps it", func(t *testing.T) {
		p := make(t)
		first := life(t, p, nil)
		for range 2 {
			if id := life(t, p, nil); id != first {
				t.Errorf("after a restart the history is %s, it was %s", id, first)
			}
		}
	})
	t.Run("a backup changes nothing, opening it does", func(t *testing.T) {
		p := make(t)
		r, ok := p.(Restorer)
		if !ok {
			t.Skip("this engine has no backups of its own")
		}
		first := life(t, p, func(s Store) { r.Backup(t, s) })
		if id := life(t, p, nil); id != first {
			t.Errorf("after a backup the history is %s, it was %s", id, first)
		}
		r.Restore(t)
		second := life(t, p, nil)
		if second == first {
			t.Error("the restored store goes on with the history that it left")
		}
		r.Restore(t)
		if third := life(t, p, nil); third == first || third == second {
			t.Error("two restores of one backup have one history")
		}
	})
}
