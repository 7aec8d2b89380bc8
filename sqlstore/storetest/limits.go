package storetest

import (
	"errors"
	"fmt"
	"testing"

	"petrel.dev/petrel/sqlstore"
)

// ExpendablePrefix is the prefix of expendable keys in stores that a Limiter makes.
const ExpendablePrefix = "/expendable/"

// runLimits checks what a store over its limit takes. open makes an empty store that may hold limit bytes.
func runLimits(t *testing.T, open func(t testing.TB, limit int64) Store) {
	const limit = 64 << 10
	value := func(n int) []byte { return make([]byte, n) }
	put := func(key string, n int) sqlstore.Op {
		return sqlstore.Op{Key: key, Value: value(n), RevAt: -1, If: sqlstore.AnyRevision}
	}
	// full returns a store that has refused an object: 15 of 4,000 bytes are in it.
	full := func(t *testing.T) Store {
		t.Helper()
		s := open(t, limit)
		for i := range 100 {
			_, err := s.Commit(t.Context(), put(fmt.Sprintf("/a/%02d", i), 4000))
			if isFull(err) {
				if i != 15 {
					t.Fatalf("object %d was refused: %v", i, err)
				}
				return s
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		t.Fatal("400,000 bytes went into a store that may hold 65,536")
		return nil
	}
	// taken commits ops and requires that they are taken, or refused.
	taken := func(t *testing.T, s Store, want bool, what string, ops ...sqlstore.Op) {
		t.Helper()
		before := revision(t, s)
		_, err := s.Commit(t.Context(), ops...)
		switch {
		case want && err != nil:
			t.Errorf("%s: %v", what, err)
		case !want && !isFull(err):
			t.Errorf("%s: %v, want a *FullError", what, err)
		case !want && revision(t, s) != before:
			t.Errorf("%s was refused, and the revision went from %d to %d", what, before, revision(t, s))
		}
	}
	t.Run("a full store says so and shrinks", func(t *testing.T) {
		s := full(t)
		taken(t, s, false, "another object", put("/b", 8000))
		taken(t, s, false, "a larger one", put("/a/00", 12000))
		taken(t, s, false, "a swap that grows", sqlstore.Op{Key: "/a/00", Delete: true, RevAt: -1, If: sqlstore.AnyRevision}, put("/b", 16000))
		taken(t, s, true, "the same size", put("/a/00", 4000))
		taken(t, s, true, "a smaller one", put("/a/00", 3000))
		taken(t, s, true, "a deletion with its last state",
			sqlstore.Op{Key: "/a/01", Delete: true, Value: value(4000), RevAt: -1, If: sqlstore.AnyRevision})
		taken(t, s, true, "a swap", sqlstore.Op{Key: "/a/02", Delete: true, RevAt: -1, If: sqlstore.AnyRevision}, put("/b", 4000))
		taken(t, s, true, "an object where one was deleted", put("/a/01", 4000))
		taken(t, s, false, "one more", put("/c", 8000))
	})
	t.Run("statuses and marks go on, for a while", func(t *testing.T) {
		s := full(t)
		taken(t, s, true, "a status", put("/a/00", 8000))
		taken(t, s, true, "something expendable", put(ExpendablePrefix+"a", 1000))
		taken(t, s, false, "something large that is expendable", put(ExpendablePrefix+"b", 9000))
		grown := 0
		for ; grown < 100; grown++ {
			if _, err := s.Commit(t.Context(), put(fmt.Sprintf("/a/%02d", 1+grown%14), 4000+(1+grown/14)*2000)); isFull(err) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
		if grown == 0 || grown > 6 {
			t.Errorf("%d objects grew by 2,000 bytes in a store that was full", grown)
		}
		mark := put("/a/14", 4100)
		taken(t, s, false, "a status beyond what is left", put("/a/14", 8000))
		mark.Frees = true
		taken(t, s, true, "a mark of deletion", mark)
		mark = put("/new", 100)
		mark.Frees = true
		taken(t, s, false, "a creation that calls itself one", mark)
	})
	t.Run("a refused transaction leaves no trace", func(t *testing.T) {
		s := full(t)
		e, _ := get(t, s, "/a/03")
		taken(t, s, false, "two objects", put("/a/03", 100), put("/big", 60000))
		if now, ok := get(t, s, "/a/03"); !ok || now.Rev != e.Rev || len(now.Value) != len(e.Value) {
			t.Errorf("after a refusal the object is at revision %d, it was at %d", now.Rev, e.Rev)
		}
		taken(t, s, true, "the first of them", put("/a/03", 100))
	})
}

func isFull(err error) bool {
	var full *sqlstore.FullError
	return errors.As(err, &full)
}
