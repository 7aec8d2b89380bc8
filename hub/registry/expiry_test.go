package registry

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"petrel.dev/petrel/sqlstore"
)

// shelf is as much of a Store as expiry needs: keys, revisions, and a count of transactions.
type shelf struct {
	Store
	mu      sync.Mutex
	keys    map[string]sqlstore.Entry
	rev     sqlstore.Revision
	commits int
}

func (s *shelf) put(key, value string) sqlstore.Revision {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rev++
	s.keys[key] = sqlstore.Entry{Key: key, Value: []byte(value), Rev: s.rev}
	return s.rev
}

func (s *shelf) Commit(_ context.Context, ops ...sqlstore.Op) ([]sqlstore.Revision, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, op := range ops {
		if have := s.keys[op.Key].Rev; have != op.If {
			return nil, &sqlstore.ConflictError{Key: op.Key, Have: have, Want: op.If}
		}
	}
	s.commits++
	for _, op := range ops {
		delete(s.keys, op.Key)
	}
	return make([]sqlstore.Revision, len(ops)), nil
}

func (s *shelf) List(string, string, int, sqlstore.Revision) (sqlstore.Page, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var p sqlstore.Page
	for _, e := range s.keys {
		p.Entries = append(p.Entries, e)
	}
	return p, nil
}

func (s *shelf) count() (keys, commits int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.keys), s.commits
}

func TestEventsExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &shelf{keys: map[string]sqlstore.Entry{}}
		x := newExpiry(s, time.Now, time.Hour, 1000, slog.New(slog.DiscardHandler))
		old := time.Now().Add(-59 * time.Minute).UTC().Format(time.RFC3339)
		s.put("old", fmt.Sprintf(`{"metadata":{"creationTimestamp":%q}}`, old))
		if err := x.load(""); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go x.run(ctx)
		write := func(key string) { x.saw(key, s.put(key, "{}"), false) }
		expect := func(keys, commits int) {
			t.Helper()
			synctest.Wait()
			if k, c := s.count(); k != keys || c != commits {
				t.Errorf("%d events after %d transactions, want %d after %d", k, c, keys, commits)
			}
		}
		for i := range 50 {
			write(fmt.Sprint("e", i))
			time.Sleep(time.Second / 2)
		}
		expect(51, 0)
		time.Sleep(2 * time.Minute) // the one from before the start
		expect(50, 1)
		write("e0") // an Event that happens again lives on
		time.Sleep(time.Hour)
		expect(1, 2)
		time.Sleep(time.Hour)
		expect(0, 3)
		time.Sleep(24 * time.Hour)
		expect(0, 3)
	})
}

func TestEventsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &shelf{keys: map[string]sqlstore.Entry{}}
		x := newExpiry(s, time.Now, time.Hour, 100, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go x.run(ctx)
		for i := range 1000 {
			key := fmt.Sprint("e", i)
			x.saw(key, s.put(key, "{}"), false)
			synctest.Wait()
			if k, _ := s.count(); k > 100 {
				t.Fatalf("%d events", k)
			}
		}
		keys, commits := s.count()
		if _, newest := s.keys["e999"]; keys < 90 || commits > 100 || !newest {
			t.Errorf("%d events, the newest there: %v, after %d transactions", keys, newest, commits)
		}
	})
}

// An Event that somebody else deleted or wrote again is not deleted by its old write.
func TestExpiryLosesRaces(t *testing.T) {
	s := &shelf{keys: map[string]sqlstore.Entry{}}
	x := newExpiry(s, time.Now, time.Hour, 100, slog.New(slog.DiscardHandler))
	a, b := s.put("a", "{}"), s.put("b", "{}")
	s.put("a", "{}")
	if !x.remove(t.Context(), []written{{"a", a, time.Time{}}, {"gone", 99, time.Time{}}, {"b", b, time.Time{}}}) {
		t.Fatal("gave up")
	}
	if _, ok := s.keys["a"]; !ok || len(s.keys) != 1 {
		t.Errorf("left %v", s.keys)
	}
}
