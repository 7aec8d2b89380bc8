package registry

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/tidwall/btree"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/contain"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/sqlstore"
)

// cache is the typed form of what the store holds now, for the kinds that somebody reads typed. A kind enters at its first
// reader and stays. Objects are shared and never changed.
type cache struct {
	store   sqlstore.Store
	decoded *decoded
	log     *slog.Logger

	feed feedHealth

	mu    sync.RWMutex
	rev   sqlstore.Revision     // all commits up to here have been applied; changed only by moveTo
	kinds map[string]*kindCache // by the kind's part of the key

	hookPrefix string // set before run
	hook       func(sqlstore.Event)
}

// kindCache is one kind. Guarded by cache.mu.
type kindCache struct {
	kind    *resource.Kind
	filled  bool              // false while the store has not been able to say what exists
	from    sqlstore.Revision // the snapshot that it started from; older events are in it
	items   btree.Map[string, cached]
	indexes map[string]*index
	subs    map[*subscription]struct{}
}

type cached struct {
	obj kube.Object
	rev sqlstore.Revision
}

func newCache(s sqlstore.Store, d *decoded, log *slog.Logger) *cache {
	c := &cache{store: s, decoded: d, log: log, kinds: map[string]*kindCache{}}
	// A store that does not answer yet leaves 0: the feed then begins with all history that is kept, or with a fresh list.
	if rev, err := s.Revision(context.Background()); err == nil {
		c.moveTo(rev)
	}
	return c
}

// moveTo notes that all commits up to rev have been applied. c.mu is held, or nobody else has c.
func (c *cache) moveTo(rev sqlstore.Revision) {
	c.rev = rev
	c.feed.applied.Store(int64(rev))
}

// onEvent has f called by the feed for every change below prefix. Before run only.
func (c *cache) onEvent(prefix string, f func(sqlstore.Event)) {
	c.hookPrefix, c.hook = prefix, f
}

// typed returns the object that raw is, shared.
func (r *Registry) typed(k *resource.Kind, key string, rev sqlstore.Revision, raw []byte) (kube.Object, error) {
	if o, ok := r.cache.at(key, rev); ok {
		return o, nil
	}
	return r.decoded.object(k, key, rev, raw)
}

// at returns key's object when the cache holds exactly that revision.
func (c *cache) at(key string, rev sqlstore.Revision) (kube.Object, bool) {
	part := kindPart(key)
	c.mu.RLock()
	defer c.mu.RUnlock()
	kc := c.kinds[part]
	if kc == nil {
		return nil, false
	}
	it, ok := kc.items.Get(key)
	if !ok || it.rev != rev {
		return nil, false
	}
	return it.obj, true
}

// read runs f on the kind's cache under the read lock, after filling it when this is the kind's first reader.
func (c *cache) read(k *resource.Kind, f func(*kindCache)) {
	part := resource.Prefix(k, "")
	c.mu.RLock()
	if kc := c.kinds[part]; kc != nil && kc.filled {
		f(kc)
		c.mu.RUnlock()
		return
	}
	c.mu.RUnlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	f(c.enter(k))
}

// enter returns the kind's cache, filled with what exists now if it is new. c.mu is held for writing.
func (c *cache) enter(k *resource.Kind) *kindCache {
	k = storedKind(k)
	part := resource.Prefix(k, "")
	if kc := c.kinds[part]; kc != nil {
		if !kc.filled {
			c.fill(kc, part)
		}
		return kc
	}
	kc := &kindCache{kind: k, subs: map[*subscription]struct{}{}, indexes: map[string]*index{}}
	for name, f := range k.Indexes {
		kc.indexes[name] = newIndex(f)
	}
	c.kinds[part] = kc
	c.fill(kc, part)
	return kc
}

// fillTimeout bounds how long the cache waits for the store while readers wait for the cache.
const fillTimeout = 10 * time.Second

// fill replaces the content of kc by what the store holds now and tells subscribers the difference. When the store cannot
// say, the next reader or event of the kind tries again. c.mu is held.
func (c *cache) fill(kc *kindCache, prefix string) {
	ctx, cancel := context.WithTimeout(context.Background(), fillTimeout) // for all readers, so of none
	defer cancel()
	page, err := c.store.List(ctx, prefix, "", 0, 0)
	if kc.filled = err == nil; err != nil {
		c.log.Error("objects cannot be listed; controllers do not see them", "kind", kc.kind.GVK.String(), "error", err)
		return
	}
	kc.from = page.Rev
	seen := make(map[string]struct{}, len(page.Entries))
	for _, e := range page.Entries {
		seen[e.Key] = struct{}{}
		if it, ok := kc.items.Get(e.Key); ok && it.rev == e.Rev {
			continue
		}
		obj, ok := c.decoded.peek(e.Rev)
		if !ok {
			if obj, err = c.decode(kc.kind, e); err != nil {
				c.unreadable(e.Key, e.Rev, err)
				continue
			}
		}
		contain.Go(c.log, "registry/cache", e.Key, func() { kc.set(e.Key, cached{obj, e.Rev}) })
	}
	var gone []string
	kc.items.Scan(func(key string, _ cached) bool {
		if _, ok := seen[key]; !ok {
			gone = append(gone, key)
		}
		return true
	})
	for _, key := range gone {
		kc.drop(key)
	}
}

// decode is decode of one entry, which a panic of a decoder makes unreadable.
func (c *cache) decode(k *resource.Kind, e sqlstore.Entry) (obj kube.Object, err error) {
	err = contain.Do(c.log, "registry/decode", e.Key, func() (err error) {
		obj, err = decode(k, e.Value)
		return err
	})
	return obj, err
}

// set stores the object's new revision and tells subscribers.
func (kc *kindCache) set(key string, it cached) {
	old, _ := kc.items.Set(key, it)
	for _, ix := range kc.indexes {
		ix.change(key, old.obj, it.obj)
	}
	for s := range kc.subs {
		s.add(control.Change{GVK: kc.kind.GVK, Old: old.obj, New: it.obj})
	}
}

// drop removes a deleted object and tells subscribers.
func (kc *kindCache) drop(key string) {
	old, ok := kc.items.Delete(key)
	if !ok {
		return
	}
	for _, ix := range kc.indexes {
		ix.change(key, old.obj, nil)
	}
	for s := range kc.subs {
		s.add(control.Change{GVK: kc.kind.GVK, Old: old.obj})
	}
}

// run applies the store's changes until ctx ends.
func (c *cache) run(ctx context.Context) error {
	c.feed.running.Store(true)
	defer c.feed.running.Store(false)
	for {
		c.mu.RLock()
		from := c.rev
		c.mu.RUnlock()
		err := c.follow(ctx, from)
		var compacted *sqlstore.CompactedError
		if !errors.As(err, &compacted) {
			return err
		}
		if err := c.refill(ctx); err != nil {
			return err
		}
	}
}

func (c *cache) follow(ctx context.Context, from sqlstore.Revision) error {
	w, err := c.store.Watch(ctx, "", from)
	if err != nil {
		return err
	}
	defer w.Close()
	for {
		events, err := w.Next(ctx)
		if err != nil {
			return err
		}
		c.apply(events)
	}
}

// refill brings all kinds to the present after the feed fell behind the store's history.
func (c *cache) refill(ctx context.Context) error {
	rev, err := c.store.Revision(ctx)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.moveTo(rev)
	for _, kc := range c.kinds {
		c.fill(kc, resource.Prefix(kc.kind, ""))
	}
	return nil
}

// apply brings one or more whole commits into the cache.
func (c *cache) apply(events []sqlstore.Event) {
	objs := c.decodeAll(events)
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, ev := range events {
		contain.Go(c.log, "registry/cache", ev.Key, func() { c.applyOne(ev, objs[i]) })
	}
	c.moveTo(events[len(events)-1].Rev)
}

// applyOne brings one change into the cache. obj is its typed form, nil when the kind entered after decodeAll looked. c.mu is
// held.
func (c *cache) applyOne(ev sqlstore.Event, obj kube.Object) {
	if c.hook != nil && strings.HasPrefix(ev.Key, c.hookPrefix) {
		c.hook(ev)
	}
	kc := c.kinds[kindPart(ev.Key)]
	if kc != nil && !kc.filled {
		c.fill(kc, resource.Prefix(kc.kind, ""))
	}
	if kc == nil || !kc.filled || ev.Rev <= kc.from {
		return
	}
	if ev.Deleted {
		kc.drop(ev.Key)
		return
	}
	if obj == nil {
		var err error
		if obj, err = c.decoded.object(kc.kind, ev.Key, ev.Rev, ev.Value); err != nil {
			c.unreadable(ev.Key, ev.Rev, err)
			return
		}
	}
	kc.set(ev.Key, cached{obj, ev.Rev})
}

// unreadable tells of an object that loops will not see. Get, List and Watch still show its bytes.
func (c *cache) unreadable(key string, rev sqlstore.Revision, err error) {
	c.log.Error("stored object cannot be decoded; controllers do not see it", "key", key, "revision", int64(rev), "err", err)
}

// decodeAll makes the typed forms outside the lock.
func (c *cache) decodeAll(events []sqlstore.Event) []kube.Object {
	kinds := make([]*resource.Kind, len(events))
	c.mu.RLock()
	for i, ev := range events {
		part := kindPart(ev.Key)
		if kc := c.kinds[part]; kc != nil {
			kinds[i] = kc.kind
		}
	}
	c.mu.RUnlock()
	objs := make([]kube.Object, len(events))
	for i, ev := range events {
		if kinds[i] != nil && !ev.Deleted {
			objs[i], _ = c.decoded.object(kinds[i], ev.Key, ev.Rev, ev.Value)
		}
	}
	return objs
}
