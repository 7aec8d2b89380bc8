package registry

import (
	"context"
	"errors"
	"sync"
	"time"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/contain"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/sqlstore"
)

// expiries has one expiry for each stored kind with a TTL. It is used by one goroutine.
type expiries struct {
	r       *Registry
	running map[kube.GVK]*expiring
}

// expiring is an expiry that runs, and the declaration that it runs by.
type expiring struct {
	kind   *resource.Kind
	cancel context.CancelFunc
	wg     sync.WaitGroup // of its one goroutine
}

// end stops the expiry, and waits for it: one kind has one at a time.
func (e *expiring) end() {
	e.cancel()
	e.wg.Wait()
}

// expire follows the kinds and deletes objects past their time until ctx ends.
func (r *Registry) expire(ctx context.Context) {
	x := expiries{r: r, running: map[kube.GVK]*expiring{}}
	for all := range r.kinds.Changes(ctx) {
		x.run(ctx, all)
	}
	for _, e := range x.running {
		e.end()
	}
}

// run starts and ends expiries so that they fit the kinds as they are now.
func (x *expiries) run(ctx context.Context, all []*resource.Kind) {
	wanted := make(map[kube.GVK]*resource.Kind)
	for _, k := range all {
		if k.StoredAs == nil && k.TTL != nil {
			wanted[k.GVK] = k
		}
	}
	for gvk, e := range x.running {
		if wanted[gvk] != e.kind {
			e.end()
			delete(x.running, gvk)
		}
	}
	for gvk, k := range wanted {
		if _, ok := x.running[gvk]; ok {
			continue
		}
		own, cancel := context.WithCancel(ctx)
		e := &expiring{kind: k, cancel: cancel}
		x.running[gvk] = e
		e.wg.Go(func() { x.r.expireKind(own, k) })
	}
}

// expireKind deletes objects of a kind past their time until ctx ends, and starts again after a panic, or when
// the store could not list them.
func (r *Registry) expireKind(ctx context.Context, k *resource.Kind) {
	prefix := resource.Prefix(k, "")
	for ctx.Err() == nil {
		x := newExpiry(r.store, r.now, *k.TTL, r.log.With("kind", k.GVK.Kind))
		forget := r.objects.OnEvent(prefix, x.saw) // before load, so that no write is missed
		err := contain.Do(r.log, "registry/expiry", k.Plural, func() error {
			if err := x.load(ctx, prefix); err != nil {
				return err
			}
			x.run(ctx)
			return nil
		})
		forget()
		if err == nil || errors.Is(err, sqlstore.ErrClosed) {
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(expiryRetry):
		}
	}
}
