// Package expiry deletes the objects of kinds that have a TTL (Events) when their time is over or when there are too many.
package expiry

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"sync"
	"time"

	"petrel.dev/petrel/hub/objects"
	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/contain"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/sqlstore"
)

// Kinds are the stored kinds, as they change; *resource.Kinds is one.
type Kinds interface {
	Changes(ctx context.Context) iter.Seq[[]*resource.Kind]
}

// Config is what an Expiry works with. All of it is required.
type Config struct {
	Kinds   Kinds
	Store   sqlstore.Store
	Objects *objects.Cache
	Now     func() time.Time
	Log     *slog.Logger
}

// Expiry deletes objects past their time: it has one queue for each stored kind with a TTL. Run owns it.
type Expiry struct {
	Config
	running map[kube.GVK]*expiring
}

// New returns an Expiry that is not running.
func New(c Config) *Expiry { return &Expiry{Config: c, running: map[kube.GVK]*expiring{}} }

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

// Run follows the kinds and deletes objects past their time until ctx ends.
func (x *Expiry) Run(ctx context.Context) {
	for all := range x.Kinds.Changes(ctx) {
		x.follow(ctx, all)
	}
	for _, e := range x.running {
		e.end()
	}
}

// follow starts and ends queues so that they fit the kinds as they are now.
func (x *Expiry) follow(ctx context.Context, all []*resource.Kind) {
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
		e.wg.Go(func() { x.one(own, k) })
	}
}

// one deletes objects of a kind past their time until ctx ends, and starts again after a panic, or when the store could not
// list them.
func (x *Expiry) one(ctx context.Context, k *resource.Kind) {
	prefix := resource.Prefix(k, "")
	for ctx.Err() == nil {
		q := newQueue(x.Store, x.Now, *k.TTL, x.Log.With("kind", k.GVK.Kind))
		forget := x.Objects.OnEvent(prefix, q.saw) // before load, so that no write is missed
		err := contain.Do(x.Log, "registry/expiry", k.Plural, func() error {
			if err := q.load(ctx, prefix); err != nil {
				return err
			}
			q.run(ctx)
			return nil
		})
		forget()
		if err == nil || errors.Is(err, sqlstore.ErrClosed) {
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(retryAfter):
		}
	}
}
