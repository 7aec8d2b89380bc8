package objects

import (
	"context"
	"errors"
	"sync"

	"petrel.dev/petrel/sqlstore"
)

// ErrEnded is the error of waiting once Run has returned: nothing more will be applied.
var ErrEnded = errors.New("the hub's cache no longer follows the store")

// waiters are the callers of WaitFor whose revision has not been applied.
type waiters struct {
	mu    sync.Mutex
	ended bool                 // no Run is under way and one has been; guarded by mu
	of    map[*waiter]struct{} // guarded by mu
}

// waiter is one caller. done is closed when rev has been applied, or when nothing more will be.
type waiter struct {
	rev  sqlstore.Revision
	done chan struct{}
}

// WaitFor returns nil once reads show all commits up to rev: at once when they do already. Otherwise it returns ctx's error,
// or ErrEnded when the feed of changes has ended. Before Run it waits for Run.
func (c *Cache) WaitFor(ctx context.Context, rev sqlstore.Revision) error {
	if c.feed.revision() >= rev {
		return nil
	}
	w := &waiter{rev: rev, done: make(chan struct{})}
	if !c.waiters.add(w) {
		return ErrEnded
	}
	defer c.waiters.remove(w)
	if c.feed.revision() >= rev { // applied before w was added, so that nothing would wake it
		return nil
	}
	select {
	case <-w.done:
	case <-ctx.Done():
		return ctx.Err()
	}
	if c.feed.revision() >= rev {
		return nil
	}
	return ErrEnded
}

// CatchUp returns nil once reads show all that was committed before the call; see WaitFor.
func (c *Cache) CatchUp(ctx context.Context) error {
	rev, err := c.store.Revision(ctx)
	if err != nil {
		return err
	}
	return c.WaitFor(ctx, rev)
}

// add reports whether there is something to wait for.
func (ws *waiters) add(w *waiter) bool {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if ws.ended {
		return false
	}
	if ws.of == nil {
		ws.of = map[*waiter]struct{}{}
	}
	ws.of[w] = struct{}{}
	return true
}

func (ws *waiters) remove(w *waiter) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	delete(ws.of, w)
}

// wake ends the waiting of all whose revision has been applied.
func (ws *waiters) wake(applied sqlstore.Revision) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	for w := range ws.of {
		if w.rev <= applied {
			delete(ws.of, w)
			close(w.done)
		}
	}
}

// begin and end are called by Run: nothing is applied outside of them.
func (ws *waiters) begin() {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	ws.ended = false
}

func (ws *waiters) end() {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	ws.ended = true
	for w := range ws.of {
		delete(ws.of, w)
		close(w.done)
	}
}
