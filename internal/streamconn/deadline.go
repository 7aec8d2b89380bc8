package streamconn

import (
	"context"
	"sync"
	"time"
)

// deadline is a time that may be moved while others wait for it: calls that wait keep their context when the time moves to
// later, and lose it when the time comes. The zero value has no time.
type deadline struct {
	mu    sync.Mutex
	ctx   context.Context    // nil: nothing has asked for it yet; guarded by mu, as are the next two
	end   context.CancelFunc // of ctx
	timer *time.Timer        // nil: no time is set, or it has passed
}

// context returns a context that ends when the time comes.
func (d *deadline) context() context.Context {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.current()
}

// current returns the context, which has ended if the time has passed. d.mu is held.
func (d *deadline) current() context.Context {
	if d.ctx == nil {
		d.ctx, d.end = context.WithCancel(context.Background())
	}
	return d.ctx
}

// set moves the time; zero means never.
func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	if d.current().Err() != nil {
		d.ctx = nil
		d.current()
	}
	if t.IsZero() {
		return
	}
	wait := time.Until(t)
	if wait <= 0 {
		d.end()
		return
	}
	var timer *time.Timer
	timer = time.AfterFunc(wait, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.timer == timer { // otherwise the time has been moved meanwhile
			d.timer = nil
			d.end()
		}
	})
	d.timer = timer
}
