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
// holds references only.
type subscription struct {
	mu    sync.Mutex
	queue []control.Change
	wake  chan struct{} // capacity 1
	log   *slog.Logger
}

func (s *subscription) add(c control.Change) {
	s.mu.Lock()
	s.queue = append(s.queue, c)
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *subscription) take() []control.Change {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := s.queue
	s.queue = nil
	return q
}

// deliver calls f for each change until ctx ends.
func (s *subscription) deliver(ctx context.Context, f func(control.Change)) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		}
		for _, c := range s.take() {
			if ctx.Err() != nil {
				return
			}
			s.call(f, c)
		}
	}
}

// call hands one change over. A panic in f is that change's: the next ones follow.
func (s *subscription) call(f func(control.Change), c control.Change) {
	obj := c.Object()
	contain.Go(s.log, "objects/subscriber", obj.GetNamespace()+"/"+obj.GetName(), func() { f(c) })
}

// Subscribe implements control.Feed. Kinds that are not served are ignored. f may read and write the API.
func (c *Cache) Subscribe(ctx context.Context, f func(control.Change), kinds ...kube.GVK) {
	s := &subscription{wake: make(chan struct{}, 1), log: c.log}
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
	context.AfterFunc(ctx, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, kc := range c.cached {
			delete(kc.subs, s)
		}
	})
	for _, ch := range now {
		s.call(f, ch)
	}
	go s.deliver(ctx, f)
}
