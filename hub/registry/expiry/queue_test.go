package expiry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/sqlstore"
)

// shelf is as much of a Store as expiry needs: keys, revisions, and a count of transactions.
type shelf struct {
	sqlstore.Store
	mu      sync.Mutex
	keys    map[string]sqlstore.Entry
	rev     sqlstore.Revision
	commits int
	fail    error // of each Commit
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
	if s.fail != nil {
		return nil, s.fail
	}
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

func (s *shelf) List(context.Context, string, string, int, sqlstore.Revision) (sqlstore.Page, error) {
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
		x := newQueue(s, time.Now, resource.TTL{After: time.Hour, MaxObjects: 1000, MaxBytes: 1 << 20}, slog.New(slog.DiscardHandler))
		old := time.Now().Add(-59 * time.Minute).UTC().Format(time.RFC3339)
		s.put("old", fmt.Sprintf(`{"metadata":{"creationTimestamp":%q}}`, old))
		if err := x.load(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go x.run(ctx)
		write := func(key string) { x.saw(sqlstore.Event{Key: key, Rev: s.put(key, "{}"), Value: []byte("{}")}) }
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
		x := newQueue(s, time.Now, resource.TTL{After: time.Hour, MaxObjects: 100, MaxBytes: 1 << 20}, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go x.run(ctx)
		for i := range 1000 {
			key := fmt.Sprint("e", i)
			x.saw(sqlstore.Event{Key: key, Rev: s.put(key, "{}"), Value: []byte("{}")})
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

// TestExpiryLosesRaces checks that an Event that a client has deleted or written again is not deleted by its old write.
func TestExpiryLosesRaces(t *testing.T) {
	s := &shelf{keys: map[string]sqlstore.Entry{}}
	x := newQueue(s, time.Now, resource.TTL{After: time.Hour, MaxObjects: 100, MaxBytes: 1 << 20}, slog.New(slog.DiscardHandler))
	a, b := s.put("a", "{}"), s.put("b", "{}")
	s.put("a", "{}")
	if !x.remove(t.Context(), []written{{key: "a", rev: a}, {key: "gone", rev: 99}, {key: "b", rev: b}}) {
		t.Fatal("gave up")
	}
	if _, ok := s.keys["a"]; !ok || len(s.keys) != 1 {
		t.Errorf("left %v", s.keys)
	}
}

// Few large Events are too many too.
func TestEventsAreBoundedInBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &shelf{keys: map[string]sqlstore.Entry{}}
		x := newQueue(s, time.Now, resource.TTL{After: time.Hour, MaxObjects: 1000, MaxBytes: 1 << 20}, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go x.run(ctx)
		large := strings.Repeat("x", 100<<10)
		for i := range 100 {
			key := fmt.Sprint("e", i)
			x.saw(sqlstore.Event{Key: key, Rev: s.put(key, large), Value: []byte(large)})
			synctest.Wait()
			if k, _ := s.count(); k > 10 {
				t.Fatalf("%d events of 100 KiB", k)
			}
		}
		if keys, _ := s.count(); keys < 8 {
			t.Errorf("%d events are left, ten fit", keys)
		}
	})
}

// Events that could not be deleted, because the disk was full say, are not forgotten.
func TestEventsThatCouldNotBeDeletedAreTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &shelf{keys: map[string]sqlstore.Entry{}}
		x := newQueue(s, time.Now, resource.TTL{After: time.Hour, MaxObjects: 1000, MaxBytes: 1 << 20}, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go x.run(ctx)
		for i := range 700 {
			key := fmt.Sprint("e", i)
			x.saw(sqlstore.Event{Key: key, Rev: s.put(key, "{}"), Value: []byte("{}")})
		}
		s.mu.Lock()
		s.fail = errors.New("disk full")
		s.mu.Unlock()
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if keys, _ := s.count(); keys != 700 {
			t.Fatalf("%d events", keys)
		}
		s.mu.Lock()
		s.fail = nil
		s.mu.Unlock()
		time.Sleep(time.Minute)
		synctest.Wait()
		if keys, _ := s.count(); keys != 0 {
			t.Errorf("%d events are left a minute after the disk had room again", keys)
		}
	})
}
