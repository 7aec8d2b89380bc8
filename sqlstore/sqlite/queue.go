package sqlite

import (
	"context"
	"sync"

	"petrel.dev/petrel/sqlstore"
)

// A request is one Commit or Compact that waits for the committer.
type request struct {
	ops     []sqlstore.Op
	compact sqlstore.Revision // when ops is empty: compact up to here

	revs []sqlstore.Revision
	err  error
	done chan struct{} // closed when revs and err are final
}

// queue hands requests to the committer. Nobody blocks in it: callers wait for their request's done.
type queue struct {
	mu      sync.Mutex
	waiting []*request
	shutOff bool
	signal  chan struct{} // capacity 1: something waits
}

func (q *queue) init() { q.signal = make(chan struct{}, 1) }

// do queues r and waits until it is settled. When ctx ends before the committer has taken r, r is withdrawn and nothing
// of it will ever be committed; once taken, do waits for the outcome, which is milliseconds away, so that its caller
// always knows.
func (q *queue) do(ctx context.Context, r *request) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r.done = make(chan struct{})
	q.mu.Lock()
	if q.shutOff {
		q.mu.Unlock()
		return sqlstore.ErrClosed
	}
	q.waiting = append(q.waiting, r)
	q.mu.Unlock()
	q.wake()
	select {
	case <-r.done:
	case <-ctx.Done():
		if q.withdraw(r) {
			return ctx.Err()
		}
		<-r.done
	}
	return r.err
}

// wake has the committer look at what there is to do.
func (q *queue) wake() {
	select {
	case q.signal <- struct{}{}:
	default:
	}
}

// busy reports whether something waits, or nothing may any more.
func (q *queue) busy() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.shutOff || len(q.waiting) > 0
}

func (q *queue) withdraw(r *request) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i, w := range q.waiting {
		if w == r {
			q.waiting = append(q.waiting[:i], q.waiting[i+1:]...)
			return true
		}
	}
	return false
}

// take returns the oldest waiting requests up to about maxOps operations and maxBytes of values, at least one when any waits.
func (q *queue) take(maxOps, maxBytes int) []*request {
	q.mu.Lock()
	defer q.mu.Unlock()
	n, ops, bytes := 0, 0, 0
	for n < len(q.waiting) && (n == 0 || ops < maxOps && bytes < maxBytes) {
		for _, op := range q.waiting[n].ops {
			bytes += len(op.Value)
		}
		ops += len(q.waiting[n].ops)
		n++
	}
	batch := q.waiting[:n:n]
	if n == len(q.waiting) {
		q.waiting = nil
	} else {
		q.waiting = q.waiting[n:]
		q.wake() // for the next round
	}
	return batch
}

// shut fails everything that waits, and all that comes, with ErrClosed.
func (q *queue) shut() {
	q.mu.Lock()
	waiting := q.waiting
	q.waiting, q.shutOff = nil, true
	q.mu.Unlock()
	for _, r := range waiting {
		r.err = sqlstore.ErrClosed
		close(r.done)
	}
}
