package fairqueue

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
)

// run queues a caller for each letter of waiting behind one that holds the slot, and returns the order in which they got it.
func run(t *testing.T, waiting string, withdrawn int) string {
	var served string
	synctest.Test(t, func(t *testing.T) {
		var q Queue
		first, err := q.Acquire(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		for i, client := range strings.Split(waiting, "") {
			ctx, cancel := context.WithCancel(t.Context())
			go func() {
				release, err := q.Acquire(ctx, client)
				if err != nil {
					return
				}
				served += client
				release()
			}()
			synctest.Wait() // they queue in order
			if i < withdrawn {
				cancel()
				synctest.Wait()
			}
			defer cancel()
		}
		first()
		synctest.Wait()
		if q.used != 0 || len(q.by) != 0 || len(q.waiting) != 0 || len(q.turns) != 0 {
			t.Errorf("left over: %+v", &q)
		}
	})
	return served
}

// TestTurns checks that a client with one request waits for one request of each other client, however many those have.
func TestTurns(t *testing.T) {
	for _, c := range []struct {
		waiting, served string
		withdrawn       int
	}{
		{"aaaaaabc", "abcaaaaa", 0},
		{"aaabbbc", "abcabab", 0},
		{"aaab", "ab", 2},
		{"aaab", "b", 3},
	} {
		if got := run(t, c.waiting, c.withdrawn); got != c.served {
			t.Errorf("%s, %d withdrawn: served %s, not %s", c.waiting, c.withdrawn, got, c.served)
		}
	}
}

// TestTurnOfOneWhoLeaves checks that a slot that comes to a caller in the moment in which it leaves goes on to the next.
func TestTurnOfOneWhoLeaves(t *testing.T) {
	for range 200 {
		var q Queue
		first, _ := q.Acquire(t.Context(), "a")
		ctx, cancel := context.WithCancel(t.Context())
		left := make(chan struct{})
		go func() {
			defer close(left)
			if release, err := q.Acquire(ctx, "b"); err == nil {
				release()
			}
		}()
		go cancel()
		first()
		<-left
		release, err := q.Acquire(t.Context(), "c") // hangs when the slot is lost
		if err != nil {
			t.Fatal(err)
		}
		release()
	}
}

// TestShares checks that one client cannot take all room, that who waits behind its own share holds up nobody else, and that what needs
// much room is never passed by.
func TestShares(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := Queue{Room: 10, Each: 6}
		var mu sync.Mutex
		served := ""
		ask := func(client string, n int64) (release func()) {
			done := make(chan struct{})
			go func() {
				release, err := q.AcquireN(t.Context(), client, n)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				served += client
				mu.Unlock()
				<-done
				release()
			}()
			synctest.Wait()
			return func() { close(done); synctest.Wait() }
		}
		first, second := ask("a", 100), ask("a", 1) // all that one may have; then more than that
		other := ask("b", 4)
		if served != "ab" {
			t.Fatalf("served %q: one client's waiting holds up another", served)
		}
		large, small := ask("c", 5), ask("d", 1)
		other()
		if served != "ab" {
			t.Fatalf("served %q: a small request passes a large one that waits", served)
		}
		first()
		if all := strings.Split(served, ""); slices.Compare(slices.Sorted(slices.Values(all)), strings.Split("aabcd", "")) != 0 {
			t.Fatalf("served %q", served) // all three at once
		}
		for _, release := range []func(){second, large, small} {
			release()
		}
		if q.used != 0 || len(q.by) != 0 || len(q.waiting) != 0 || len(q.turns) != 0 {
			t.Errorf("left over: %+v", &q)
		}
	})
}

// TestTry checks that a caller that does not wait gets room by the rules of those that do, and leaves nothing behind when there is none.
func TestTry(t *testing.T) {
	q := Queue{Room: 3, Each: 2}
	first, ok := q.TryN("a", 5) // more than a client may have: its whole share
	if !ok {
		t.Fatal("an empty queue has no room")
	}
	if _, ok := q.TryN("a", 1); ok {
		t.Error("a client got more than its share")
	}
	if _, ok := q.TryN("b", 2); ok {
		t.Error("there was more than there is")
	}
	second, ok := q.TryN("b", 1)
	if !ok {
		t.Error("what is left was not given")
	}
	first()
	second()
	if q.used != 0 || len(q.by) != 0 || len(q.waiting) != 0 || len(q.turns) != 0 {
		t.Errorf("left over: %+v", &q)
	}
}
