package objects

import (
	"context"
	"log/slog"
	"sync"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/contain"
	"petrel.dev/petrel/internal/kube"
)

// delivery hands changes to all subscriptions, from one goroutine: a commit that a dozen loops follow wakes one of them, not
// a dozen. Its queue is unbounded: subscribers are the hub's own loops, which must be quick, and it holds references only.
// The goroutine exists while there are subscriptions.
type delivery struct {
	log  *slog.Logger
	wake chan struct{} // capacity 1: queue has something, or the last subscription has ended

	mu      sync.Mutex
	queue   []delivered
	subs    int  // that have begun and not ended
	running bool // the goroutine exists
}

// delivered is one change on its way to one subscription.
type delivered struct {
	to     *subscription
	change control.Change
}

// subscription is one Subscribe call.
type subscription struct {
	f     func(control.Change)
	ended <-chan struct{}
	begun bool             // Subscribe is about to return; guarded by delivery.mu
	held  []control.Change // what has come before; guarded by delivery.mu
}

func newDelivery(log *slog.Logger) *delivery {
	return &delivery{log: log, wake: make(chan struct{}, 1)}
}

// add takes in a change for s.
func (d *delivery) add(s *subscription, c control.Change) {
	d.mu.Lock()
	if s.begun {
		d.queue = append(d.queue, delivered{s, c})
	} else {
		s.held = append(s.held, c)
	}
	d.mu.Unlock()
	d.signal()
}

func (d *delivery) signal() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// begin delivers to s from now on, first what has come meanwhile.
func (d *delivery) begin(s *subscription) {
	d.mu.Lock()
	s.begun = true
	for _, c := range s.held {
		d.queue = append(d.queue, delivered{s, c})
	}
	s.held = nil
	d.subs++
	if !d.running {
		d.running = true
		go d.run()
	}
	d.mu.Unlock()
	d.signal()
}

// end is the end of a subscription that has begun.
func (d *delivery) end() {
	d.mu.Lock()
	d.subs--
	d.mu.Unlock()
	d.signal()
}

// run delivers until there is no subscription left.
func (d *delivery) run() {
	for range d.wake {
		d.mu.Lock()
		queue := d.queue
		d.queue = nil
		if d.subs == 0 {
			d.running = false
			d.mu.Unlock()
			return // what is in queue is for nobody
		}
		d.mu.Unlock()
		for _, q := range queue {
			select {
			case <-q.to.ended:
			default:
				d.call(q.to.f, q.change)
			}
		}
	}
}

// call hands one change over. A panic in f is that change's: the next ones follow.
func (d *delivery) call(f func(control.Change), c control.Change) {
	obj := c.Object()
	contain.Go(d.log, "objects/subscriber", obj.GetNamespace()+"/"+obj.GetName(), func() { f(c) })
}

// Subscribe implements control.Feed. Kinds that are not served are ignored. f may read and write the API.
func (c *Cache) Subscribe(ctx context.Context, f func(control.Change), kinds ...kube.GVK) {
	s := &subscription{f: f, ended: ctx.Done()}
	var now []control.Change
	c.mu.Lock()
	for _, gvk := range kinds {
		k, served := c.kinds.Lookup(gvk)
		if !served {
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
	for _, ch := range now {
		c.delivery.call(f, ch)
	}
	c.delivery.begin(s)
	context.AfterFunc(ctx, func() {
		c.mu.Lock()
		for _, kc := range c.cached {
			delete(kc.subs, s)
		}
		c.mu.Unlock()
		c.delivery.end()
	})
}
