package storetest

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"petrel.dev/petrel/sqlstore"
)

// TenantOf names the tenant of a key for a Sharer: its first part, unless that is "common".
func TenantOf(key string) string {
	name, _, _ := strings.Cut(strings.TrimPrefix(key, "/"), "/")
	if name == "common" {
		return ""
	}
	return name
}

// runTenants checks that one tenant cannot fill a store for others. open makes a store of the limit whose tenants are
// TenantOf's.
func runTenants(t *testing.T, open func(t testing.TB, limit int64) Store) {
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
