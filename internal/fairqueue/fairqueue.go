// Package fairqueue shares room among clients: one that waits with many requests gets one turn when each of the others has had
// one.
//
//	waiting: a a a a a a b c     served: a b c a a a a a
//
// Who may wait, and how many, is bounded elsewhere: what waits here is a request that is in flight.
package fairqueue

import (
	"context"
	"slices"
	"sync"
)

// Queue hands out room. The zero value is ready and has one slot, which is free.
type Queue struct {
	// Room is how much there is; 0: one slot. Set before use.
	Room int64
	// Each is how much of it one client may have at a time; 0: all. Set before use.
	Each int64

	mu      sync.Mutex
	used    int64                // guarded by mu
	by      map[string]int64     // used, by client; no zeros; guarded by mu
	waiting map[string][]*waiter // by client, the oldest first; no empty lists; guarded by mu
	turns   []string             // the clients in waiting, the one whose turn is next first; guarded by mu
}

// waiter is a caller that waits.
type waiter struct {
	n    int64
	turn chan struct{} // closed when the room is this caller's
}

// Acquire waits for client's turn, or returns ctx's error. Who has got a slot must call release, once.
func (q *Queue) Acquire(ctx context.Context, client string) (release func(), err error) {
	return q.AcquireN(ctx, client, 1)
}

// AcquireN is Acquire for room of n, of which no more than what one client may have is taken.
func (q *Queue) AcquireN(ctx context.Context, client string, n int64) (release func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	q.mu.Lock()
	w := q.wait(client, n)
	release = func() { q.release(client, w.n) }
	q.mu.Unlock()
	select {
	case <-w.turn:
		return release, nil
	case <-ctx.Done():
		if !q.withdraw(client, w) {
			release() // it was this caller's turn just now
		}
		return nil, ctx.Err()
	}
}

// TryN is AcquireN for a caller that does not wait: it reports whether it was the client's turn.
func (q *Queue) TryN(client string, n int64) (release func(), ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	w := q.wait(client, n)
	select {
	case <-w.turn:
		return func() { q.release(client, w.n) }, true
	default:
		q.remove(client, len(q.waiting[client])-1)
		return nil, false
	}
}

// wait adds a caller to those that wait, and serves them. q.mu is held.
func (q *Queue) wait(client string, n int64) *waiter {
	w := &waiter{n: min(n, q.each()), turn: make(chan struct{})}
	if q.waiting == nil {
		q.waiting, q.by = map[string][]*waiter{}, map[string]int64{}
	}
	if len(q.waiting[client]) == 0 {
		q.turns = append(q.turns, client)
	}
	q.waiting[client] = append(q.waiting[client], w)
	q.serve()
	return w
}

// room and each return the bounds, with their defaults.
func (q *Queue) room() int64 { return max(q.Room, 1) }

func (q *Queue) each() int64 {
	if q.Each > 0 {
		return min(q.Each, q.room())
	}
	return q.room()
}

// withdraw takes a caller out of the queue; it returns false when the room is that caller's already.
func (q *Queue) withdraw(client string, w *waiter) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	i := slices.Index(q.waiting[client], w)
	if i < 0 {
		return false
	}
	q.remove(client, i)
	q.serve() // it may have been what others waited behind
	return true
}

// remove takes client's waiter i away. q.mu is held.
func (q *Queue) remove(client string, i int) {
	q.waiting[client] = slices.Delete(q.waiting[client], i, i+1)
	if len(q.waiting[client]) == 0 {
		delete(q.waiting, client)
		q.turns = slices.DeleteFunc(q.turns, func(c string) bool { return c == client })
	}
}

// release returns n that client has.
func (q *Queue) release(client string, n int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.used -= n
	if q.by[client] -= n; q.by[client] <= 0 {
		delete(q.by, client)
	}
	q.serve()
}

// serve gives room to the oldest caller of the client whose turn it is, and that client the last turn, as long as there is
// room. A client that has its share already is passed over; one for which there is too little room holds up those behind it. q.mu is held.
func (q *Queue) serve() {
	for i := 0; i < len(q.turns); {
		client := q.turns[i]
		w := q.waiting[client][0]
		switch {
		case q.by[client]+w.n > q.each():
			i++
			continue
		case q.used+w.n > q.room():
			return
		}
		q.used += w.n
		q.by[client] += w.n
		close(w.turn)
		q.turns = append(slices.Delete(q.turns, i, i+1), client)
		q.remove(client, 0)
		i = 0
	}
}
