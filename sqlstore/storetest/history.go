package storetest

import (
	"testing"

	"petrel.dev/petrel/sqlstore"
)

// Place is where an engine keeps one store.
type Place interface {
	// Open opens the store, making it the first time; end closes it.
	Open(t testing.TB) (s Store, end func())
	// Backup makes a backup of s, which is open, by the engine's own means.
	Backup(t testing.TB, s Store)
	// Restore puts that backup in the closed store's place.
	Restore(t testing.TB)
}

// RunHistory checks when a store begins a new history: revisions are compared within one history only, so a store that may
// have gone back in time must have another name.
func RunHistory(t *testing.T, make func(t testing.TB) Place) {
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
		first := life(t, p, func(s Store) { p.Backup(t, s) })
		if id := life(t, p, nil); id != first {
			t.Errorf("after a backup the history is %s, it was %s", id, first)
		}
		p.Restore(t)
		second := life(t, p, nil)
		if second == first {
			t.Error("the restored store goes on with the history that it left")
		}
		p.Restore(t)
		if third := life(t, p, nil); third == first || third == second {
			t.Error("two restores of one backup have one history")
		}
	})
}
