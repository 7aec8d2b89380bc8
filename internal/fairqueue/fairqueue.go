// Package fairqueue shares one slot, held by one caller at a time, among clients: one that waits with many requests gets
// one turn when each of the others has had one.
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

// Queue hands out the slot. The zero value is ready, and the slot is free.
type Queue struct {
	mu      sync.Mutex
	held    bool                       // guarded by mu
	waiting map[string][]chan struct{} // by client, the oldest first; no empty lists; guarded by mu
	turns   []string                   // the clients in waiting, the one whose turn is next first; guarded by mu
}

// Acquire waits for client's turn, or returns ctx's error. Who has got the slot must call release, once.
func (q *Queue) Acquire(ctx context.Context, client string) (release func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	q.mu.Lock()
	if !q.held {
		q.held = true
		q.mu.Unlock()
		return q.release, nil
	}
	turn := make(chan struct{}) // closed when the slot is this caller's
	if q.waiting == nil {
		q.waiting = map[string][]chan struct{}{}
	}
	if len(q.waiting[client]) == 0 {
		q.turns = append(q.turns, client)
	}
	q.waiting[client] = append(q.waiting[client], turn)
	q.mu.Unlock()
	select {
	case <-turn:
		return q.release, nil
	case <-ctx.Done():
		if !q.withdraw(client, turn) {
			q.release() // it was this caller's turn just now
		}
		return nil, ctx.Err()
	}
}

// withdraw takes a caller out of the queue; it returns false when the slot is that caller's already.
func (q *Queue) withdraw(client string, turn chan struct{}) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	i := slices.Index(q.waiting[client], turn)
	if i < 0 {
		return false
	}
	q.waiting[client] = slices.Delete(q.waiting[client], i, i+1)
	if len(q.waiting[client]) == 0 {
		delete(q.waiting, client)
		q.turns = slices.DeleteFunc(q.turns, func(c string) bool { return c == client })
	}
	return true
}

// release gives the slot to the oldest caller of the client whose turn it is, and that client the last turn.
func (q *Queue) release() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.turns) == 0 {
		q.held = false
		return
	}
	client := q.turns[0]
	q.turns = q.turns[1:]
	mine := q.waiting[client]
	close(mine[0])
	if mine = mine[1:]; len(mine) == 0 {
		delete(q.waiting, client)
		return
	}
	q.waiting[client] = mine
	q.turns = append(q.turns, client)
}
