package storetest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"

	"petrel.dev/petrel/sqlstore"
)

func runConcurrency(t *testing.T, open func(t testing.TB) Store) {
	t.Run("one of many wins each revision", func(t *testing.T) { testCounter(t, open(t)) })
	t.Run("every watcher sees every commit whole", func(t *testing.T) { testWatchers(t, open(t)) })
	t.Run("a slow watcher misses nothing", func(t *testing.T) { testSlow(t, open(t)) })
	t.Run("what a conflict names can be read", func(t *testing.T) { testConflictShows(t, open(t)) })
	t.Run("a canceled commit leaves nothing", func(t *testing.T) { testCanceled(t, open(t)) })
	t.Run("close ends next", func(t *testing.T) { testClose(t, open(t)) })
}

// testCounter has writers increment one number with optimistic concurrency: no increment may be lost.
func testCounter(t *testing.T, s Store) {
	const writers, each = 8, 25
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for done := 0; done < each; {
				e, _ := get(t, s, "/counter")
				n, _ := strconv.Atoi(string(e.Value))
				_, err := s.Commit(t.Context(), sqlstore.Op{Key: "/counter", Value: []byte(strconv.Itoa(n + 1)), RevAt: -1, If: e.Rev})
				var conflict *sqlstore.ConflictError
				switch {
				case err == nil:
					done++
				case !errors.As(err, &conflict):
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if e, _ := get(t, s, "/counter"); string(e.Value) != strconv.Itoa(writers*each) || e.Rev != writers*each || e.Created != 1 {
		t.Errorf("counter is %s at revision %d, created at %d", e.Value, e.Rev, e.Created)
	}
}

// testConflictShows has many create one key at once: each that gets a conflict finds the key.
func testConflictShows(t *testing.T, s Store) {
	var wg sync.WaitGroup
	for round := range 20 {
		key := fmt.Sprintf("/key/%d", round)
		for range 8 {
			wg.Go(func() {
				_, err := s.Commit(t.Context(), sqlstore.Op{Key: key, Value: []byte("x"), RevAt: -1})
				var conflict *sqlstore.ConflictError
				switch e, ok := get(t, s, key); {
				case err != nil && !errors.As(err, &conflict):
					t.Error(err)
				case !ok || err != nil && e.Rev != conflict.Have:
					t.Errorf("after %v, %s is at revision %d", err, key, e.Rev)
				}
			})
		}
		wg.Wait()
	}
}

// testWatchers has many writers commit transactions of three keys, in two prefixes; watchers check what each batch may look like.
func testWatchers(t *testing.T, s Store) {
	const writers, each = 6, 30
	const total = writers * each
	var wg sync.WaitGroup
	for _, prefix := range []string{"/", "/left/", "/right/", "/left/"} {
		w, err := s.Watch(t.Context(), prefix, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		wg.Go(func() { followTransactions(t, s, w, prefix, total) })
	}
	for i := range writers {
		wg.Go(func() {
			for n := range each {
				op := func(side string) sqlstore.Op {
					return sqlstore.Op{Key: fmt.Sprintf("/%s/%d", side, i), Value: fmt.Appendf(nil, "%d", n), RevAt: -1, If: sqlstore.AnyRevision}
				}
				if _, err := s.Commit(t.Context(), op("left"), op("right"), op("left")); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func followTransactions(t *testing.T, s Store, w sqlstore.Watcher, prefix string, total int) {
	perTx := map[string]int{"/": 3, "/left/": 2, "/right/": 1}[prefix]
	var last sqlstore.Revision
	for seen := 0; seen < total*perTx; {
		events, err := w.Next(t.Context())
		if err != nil {
			t.Errorf("watch %s: %v", prefix, err)
			return
		}
		if len(events)%perTx != 0 {
			t.Errorf("watch %s: %d events, not a whole number of transactions", prefix, len(events))
		}
		for _, e := range events {
			if e.Rev <= last || prefix == "/" && e.Rev != last+1 {
				t.Errorf("watch %s: revision %d follows %d", prefix, e.Rev, last)
			}
			if !strings.HasPrefix(e.Key, prefix) {
				t.Errorf("watch %s: got %s", prefix, e.Key)
			}
			last = e.Rev
		}
		if revision(t, s) < last || w.Revision() < last {
			t.Errorf("watch %s: store at %d, watcher at %d, event at %d", prefix, revision(t, s), w.Revision(), last)
		}
		seen += len(events)
	}
}

// testSlow writes far more than a store would buffer for a watcher before the watcher first looks.
func testSlow(t *testing.T, s Store) {
	w, err := s.Watch(t.Context(), "/many/", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	const commits, each = 24, 250
	for i := range commits {
		ops := make([]sqlstore.Op, each)
		for j := range ops {
			ops[j] = sqlstore.Op{Key: fmt.Sprintf("/many/%d", j), Value: fmt.Appendf(nil, "%d", i), RevAt: -1, If: sqlstore.AnyRevision}
			if j%5 == 4 {
				ops[j].Key = "/other"
			}
		}
		if _, err := s.Commit(t.Context(), ops...); err != nil {
			t.Fatal(err)
		}
	}
	var last sqlstore.Revision
	for seen := 0; seen < commits*each*4/5; {
		events, err := w.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(events)%(each*4/5) != 0 {
			t.Fatalf("%d events: not up to a commit boundary", len(events))
		}
		for _, e := range events {
			if want := last + 1; e.Rev != want && !(want%5 == 0 && e.Rev == want+1) {
				t.Fatalf("revision %d follows %d", e.Rev, last)
			}
			if i := (e.Rev - 1) / each; string(e.Value) != strconv.Itoa(int(i)) || i > 0 && string(e.Prev) != strconv.Itoa(int(i-1)) {
				t.Fatalf("revision %d: value %s, before %s", e.Rev, e.Value, e.Prev)
			}
			last = e.Rev
		}
		seen += len(events)
	}
	if w.Revision() != commits*each {
		t.Errorf("watcher at %d of %d", w.Revision(), commits*each)
	}
}

func testCanceled(t *testing.T, s Store) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Commit(ctx, sqlstore.Op{Key: "/x", RevAt: -1}); !errors.Is(err, context.Canceled) {
		t.Errorf("commit: %v", err)
	}
	if _, ok := get(t, s, "/x"); ok || revision(t, s) != 0 {
		t.Errorf("a canceled commit was committed, revision %d", revision(t, s))
	}
}

func testClose(t *testing.T, s Store) {
	w, err := s.Watch(t.Context(), "/", 0)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() {
		_, err := w.Next(t.Context())
		ended <- err
	}()
	w.Close()
	w.Close()
	if err := <-ended; !errors.Is(err, sqlstore.ErrClosed) {
		t.Errorf("next: %v", err)
	}
}
