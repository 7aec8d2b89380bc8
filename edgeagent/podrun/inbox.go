package podrun

import (
	"context"
	"sync"
)

// result is what a job or another goroutine has for a worker. It is a plain value; apply puts it into the worker's state and
// runs in the worker's own goroutine. ctx is the worker's.
type result interface {
	apply(ctx context.Context, w *worker)
}

// inbox is the one way into a worker. Unlike a channel it never makes a sender wait: a probe must not stand still because its
// pod's worker waits for a disk. It stays small all the same: a job leaves one result, a probe one each time its opinion changes.
type inbox struct {
	mu      sync.Mutex
	results []result      // oldest first; guarded by mu
	ready   chan struct{} // capacity 1: the worker is to take a step
}

func newInbox() inbox { return inbox{ready: make(chan struct{}, 1)} }

// put leaves a result and makes the worker take a step soon. Nobody takes it when the worker has ended.
func (b *inbox) put(r result) {
	b.mu.Lock()
	b.results = append(b.results, r)
	b.mu.Unlock()
	b.poke()
}

// poke makes the worker take a step soon.
func (b *inbox) poke() {
	select {
	case b.ready <- struct{}{}:
	default:
	}
}

// next takes the oldest result. One at a time: a panic over one loses only that one.
func (b *inbox) next() (result, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.results) == 0 {
		b.results = nil
		return nil, false
	}
	r := b.results[0]
	b.results = b.results[1:]
	return r, true
}
