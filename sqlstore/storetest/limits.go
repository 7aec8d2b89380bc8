package storetest

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"petrel.dev/petrel/sqlstore"
)

// ExpendablePrefix is the prefix of expendable keys in stores that RunLimits asks for.
const ExpendablePrefix = "/expendable/"

// RunLimits checks what a store over its limit takes. open makes an empty store that may hold limit bytes.
func RunLimits(t *testing.T, open func(t testing.TB, limit int64) Store) {
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

// TenantOf names the tenant of a key for RunTenants: its first part, unless that is "common".
func TenantOf(key string) string {
	name, _, _ := strings.Cut(strings.TrimPrefix(key, "/"), "/")
	if name == "common" {
		return ""
	}
	return name
}

// RunTenants checks that one tenant cannot fill a store for others. open makes a store of the limit whose tenants are
// TenantOf's.
func RunTenants(t *testing.T, open func(t testing.TB, limit int64) Store) {
	const limit = 64 << 10
	put := func(key string, n int) sqlstore.Op {
		return sqlstore.Op{Key: key, Value: make([]byte, n), RevAt: -1, If: sqlstore.AnyRevision}
	}
	// fill creates objects of 1,000 bytes until one is refused, and returns how many were taken, and the refusal.
	fill := func(t *testing.T, s Store, tenant string, reserve bool) (int, *sqlstore.FullError) {
		t.Helper()
		for i := range 100 {
			op := put(fmt.Sprintf("/%s/%02d", tenant, i), 1000)
			op.Reserve = reserve
			_, err := s.Commit(t.Context(), op)
			if full := (*sqlstore.FullError)(nil); errors.As(err, &full) {
				return i, full
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		t.Fatal("100,000 bytes went into a store that may hold 65,536")
		return 0, nil
	}
	t.Run("one gets half, the next what is fair", func(t *testing.T) {
		s := open(t, limit)
		n, full := fill(t, s, "noisy", false)
		if full.Tenant != "noisy" || n < 26 || n > 29 || full.Limit != limit/2 {
			t.Errorf("%d of 57 objects were taken, then %+v", n, full)
		}
		if text := full.Error(); !strings.Contains(text, `"noisy" holds 3`) || !strings.Contains(text, "may hold 32.0 KiB") {
			t.Errorf("the refusal is %q", text)
		}
		if n, full := fill(t, s, "second", false); full.Tenant != "second" || n < 12 {
			t.Errorf("the second got %d, then %+v", n, full)
		}
		if n, _ := fill(t, s, "third", false); n < 5 {
			t.Errorf("the third got %d", n)
		}
		if _, err := s.Commit(t.Context(), put("/quiet/a", 1000)); err != nil {
			t.Errorf("who has nothing yet: %v", err)
		}
		for what, op := range map[string]sqlstore.Op{
			"the same size": put("/noisy/00", 1000), "a smaller one": put("/noisy/01", 900), "a status": put("/noisy/02", 2000),
			"a deletion": {Key: "/noisy/03", Delete: true, RevAt: -1, If: sqlstore.AnyRevision}, "nobody's": put("/common/a", 1000),
		} {
			if _, err := s.Commit(t.Context(), op); err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
	})
	t.Run("small growth ends too", func(t *testing.T) {
		s := open(t, limit)
		n, _ := fill(t, s, "noisy", false)
		steps, size := 0, 1000
		for err := error(nil); err == nil; steps++ {
			if steps%n == 0 {
				size += 1000
			}
			_, err = s.Commit(t.Context(), put(fmt.Sprintf("/noisy/%02d", steps%n), size))
		}
		if steps < 2 || steps > 15 {
			t.Errorf("%d objects grew by 1,000 bytes each in a share that was full", steps)
		}
		if _, err := s.Commit(t.Context(), put("/quiet/a", 1000)); err != nil {
			t.Errorf("who has nothing yet: %v", err)
		}
	})
	t.Run("the reserve", func(t *testing.T) {
		s := open(t, limit)
		fill(t, s, "noisy", false)
		if n, full := fill(t, s, "noisy", true); n < 55 || full.Tenant != "" {
			t.Errorf("who keeps order got %d, then %+v", n, full)
		}
	})
	t.Run("room comes back", func(t *testing.T) {
		s := open(t, limit)
		n, _ := fill(t, s, "noisy", false)
		for i := range n {
			if _, err := s.Commit(t.Context(), sqlstore.Op{Key: fmt.Sprintf("/noisy/%02d", i), Delete: true, RevAt: -1, If: sqlstore.AnyRevision}); err != nil {
				t.Fatal(err)
			}
		}
		if again, _ := fill(t, s, "noisy", false); again != n {
			t.Errorf("first %d objects, after they were deleted %d", n, again)
		}
	})
}
