package objects

import (
	"context"
	"log/slog"
	"sync"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/contain"
	"petrel.dev/petrel/internal/kube"
)

// delivery passes changes to all subscriptions from one goroutine: a commit that a dozen loops follow wakes one goroutine, not a
// dozen. Its queue is unbounded: subscribers are the hub's own loops, which must be quick, and it holds references only.
// The goroutine exists only while there is something to deliver.
type delivery struct {
	log *slog.Logger

	mu      sync.Mutex
	queue   []delivered // in commit order; guarded by mu
	spare   []delivered // empty, of at most maxSpare: the memory of a queue that has been delivered; guarded by mu
	running bool        // the goroutine exists; guarded by mu
}

// maxSpare is what is kept of the queue's memory, in changes: some 25 KB.
const maxSpare = 256

// delivered is one change on its way to one subscription, or a mark that is closed when all before it has been delivered.
type delivered struct {
	to     *subscription
	change control.Change
	mark   chan struct{} // nil for a change
}

// subscription is one Subscribe call.
type subscription struct {
	f     func(control.Change)
	ended <-chan struct{}
	begun bool             // Subscribe is about to return; guarded by delivery.mu
	held  []control.Change // what came before begun; nil afterwards; guarded by delivery.mu
}

// add queues a change for s, or keeps it until begin.
func (d *delivery) add(s *subscription, c control.Change) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !s.begun {
		s.held = append(s.held, c)
		return
	}
	d.put(delivered{to: s, change: c})
}

// begin delivers to s from now on, first what was kept for it.
func (d *delivery) begin(s *subscription) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s.begun = true
	for _, c := range s.held {
		d.put(delivered{to: s, change: c})
	}
	s.held = nil
}

// put queues one change. d.mu is held.
func (d *delivery) put(q delivered) {
	d.queue = append(d.queue, q)
	if !d.running {
		d.running = true
		go d.run()
	}
}

// take returns what is queued, and keeps the memory of what was taken before. When it returns nothing, it has recorded that the goroutine ends.
func (d *delivery) take(before []delivered) []delivered {
	clear(before)
	d.mu.Lock()
	defer d.mu.Unlock()
	if cap(before) > 0 && cap(before) <= maxSpare {
		d.spare = before[:0]
	}
	queue := d.queue
	if len(queue) == 0 {
		d.running = false
		return nil
	}
	d.queue, d.spare = d.spare, nil
	return queue
}

// run delivers until there is nothing left.
func (d *delivery) run() {
	for queue := d.take(nil); len(queue) > 0; queue = d.take(queue) {
		for _, q := range queue {
			if q.mark != nil {
				close(q.mark)
				continue
			}
			select {
			case <-q.to.ended:
			default:
				d.call(q.to.f, q.change)
			}
		}
	}
}

// call passes one change to f. A panic in f is contained, and the next changes follow.
func (d *delivery) call(f func(control.Change), c control.Change) {
	name := func() string { return c.Object().GetNamespace() + "/" + c.Object().GetName() }
	_ = contain.Lazy(d.log, "objects/subscriber", name, func() error { f(c); return nil })
}

// Delivered returns nil once subscribers have been given all that was committed before the call; otherwise what CatchUp returns.
func (c *Cache) Delivered(ctx context.Context) error {
	if err := c.CatchUp(ctx); err != nil {
		return err
	}
	mark := make(chan struct{})
	c.delivery.mu.Lock()
	c.delivery.put(delivered{mark: mark})
	c.delivery.mu.Unlock()
	select {
	case <-mark:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Subscribe implements control.Feed. A kind that is not served yet is followed once it is. f may read and write the API.
func (c *Cache) Subscribe(ctx context.Context, f func(control.Change), kinds ...kube.GVK) {
	s := &subscription{f: f, ended: ctx.Done()}
	var now []control.Change
	c.mu.Lock()
	for _, gvk := range kinds {
		k, served := c.kinds.Lookup(gvk)
		if !served {
			c.subscribers(gvk)[s] = struct{}{}
			continue
		}
		kc := c.enter(k)
		kc.items.Scan(func(_ string, it cached) bool {
			now = append(now, control.Change{GVK: kc.kind.GVK, New: it.obj})
			return true
		})
		kc.subs[s] = struct{}{}
	}
	c.mu.Unlock()
	context.AfterFunc(ctx, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, subs := range c.subs {
			delete(subs, s)
		}
	})
	for _, ch := range now {
		c.delivery.call(f, ch)
	}
	c.delivery.begin(s)
}
