package objects

import (
	"context"
	"log/slog"
	"sync"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/contain"
	"petrel.dev/petrel/internal/kube"
)

// subscription is one Subscribe call. Its queue is unbounded: f is the hub's own loop code, which must be quick, and
// holds references only. It has a goroutine only while there is something to deliver: a loop of every kind has one
// subscription for each, and most are silent most of the time.
type subscription struct {
	f     func(control.Change)
	ended <-chan struct{}
	log   *slog.Logger

	mu         sync.Mutex
	queue      []control.Change
	delivering bool // one goroutine hands the queue over, or Subscribe has not returned
}

func (s *subscription) add(c control.Change) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue = append(s.queue, c)
	if !s.delivering {
		s.delivering = true
		go s.deliver()
	}
}

// take returns what is queued. When that is nothing, the caller's delivery is over.
func (s *subscription) take() []control.Change {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := s.queue
	s.queue, s.delivering = nil, len(q) > 0
	return q
}

// deliver calls f for each change that is queued, until the subscription has ended.
func (s *subscription) deliver() {
	for q := s.take(); len(q) > 0; q = s.take() {
		for _, c := range q {
			select {
			case <-s.ended:
				return // still delivering, so that nothing is delivered any more
			default:
			}
			s.call(c)
		}
	}
}

// call hands one change over. A panic in f is that change's: the next ones follow.
func (s *subscription) call(c control.Change) {
	obj := c.Object()
	contain.Go(s.log, "objects/subscriber", obj.GetNamespace()+"/"+obj.GetName(), func() { s.f(c) })
}

// Subscribe implements control.Feed. A kind that is not served is followed from when it is. f may read and write the API.
func (c *Cache) Subscribe(ctx context.Context, f func(control.Change), kinds ...kube.GVK) {
	s := &subscription{f: f, ended: ctx.Done(), log: c.log, delivering: true}
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
		s.call(ch)
	}
	go s.deliver()
}
