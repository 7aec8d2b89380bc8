package objects

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tidwall/btree"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/contain"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/sqlstore"
)

// Kinds yields the served kinds, which may change while the cache runs; *resource.Kinds is one.
type Kinds interface {
	Lookup(kube.GVK) (*resource.Kind, bool)
	// Changes yields the kinds as they are now, and again after changes until ctx ends.
	Changes(ctx context.Context) iter.Seq[[]*resource.Kind]
}

// Config is what a Cache needs. Store and Kinds are required.
type Config struct {
	Store sqlstore.Store
	Kinds Kinds
	Log   *slog.Logger // nil: discarded
}

// Cache is the typed form of what the store holds now, for the kinds that are read typed: control.Reader and control.Feed. A
// kind enters at its first reader and stays as long as it is served. All methods may be called from any goroutine, also before Run. What
// reads show does not change until Run.
type Cache struct {
	// These are set by New, never nil, and have locks of their own.
	store    sqlstore.Store
	kinds    Kinds
	decoded  *decoded
	log      *slog.Logger
	delivery *delivery
	feed     feedHealth
	waiters  waiters
	changes  atomic.Uint64 // of all kinds, grows only: no version of a kind comes twice

	mu     sync.RWMutex
	rev    sqlstore.Revision     // all commits up to here have been applied; changed only by moveTo; guarded by mu
	cached map[string]*kindCache // by the kind's part of the key; guarded by mu
	// subs outlive what is cached: when a kind is served again, its subscribers follow it again. The sets are shared with cached
	// and are emptied, never replaced. Guarded by mu.
	subs  map[kube.GVK]map[*subscription]struct{}
	hooks map[string]*hook // by the kind's part of the key; guarded by mu
}

// kindCache is one kind. Guarded by Cache.mu.
type kindCache struct {
	kind    *resource.Kind
	filled  bool                       // false until the store has answered what exists
	from    sqlstore.Revision          // the snapshot that it started from; older events are in it
	items   btree.Map[string, cached]  // by key
	indexes map[string]*index          // by name: those that the kind declares
	subs    map[*subscription]struct{} // Cache.subs of the kind
	version uint64                     // Cache.Version; 0 only until the first fill

	// Both are the cache's.
	delivery *delivery
	changes  *atomic.Uint64
}

// hook is an OnEvent call; its pointer identifies it.
type hook struct{ f func(sqlstore.Event) }

type cached struct {
	obj kube.Object
	rev sqlstore.Revision
}

// New returns a cache of what the store holds. It follows the store while Run runs.
func New(cfg Config) *Cache {
	log := cfg.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	c := &Cache{store: cfg.Store, kinds: cfg.Kinds, decoded: newDecoded(log), delivery: &delivery{log: log}, log: log, cached: map[string]*kindCache{},
		subs: map[kube.GVK]map[*subscription]struct{}{}, hooks: map[string]*hook{}}
	// When the store does not answer yet, rev stays 0: the feed then begins with all history that is kept, or with a new list.
	if rev, err := cfg.Store.Revision(context.Background()); err == nil {
		c.moveTo(rev)
	}
	return c
}

// moveTo records that all commits up to rev have been applied. c.mu is held, or no other goroutine has c.
func (c *Cache) moveTo(rev sqlstore.Revision) {
	c.rev = rev
	c.feed.applied.Store(int64(rev))
}

// OnEvent makes the feed call f for every change of the kind whose keys begin with part, until forget is called or another f
// replaces it. f must be quick, and must not read the cache.
func (c *Cache) OnEvent(part string, f func(sqlstore.Event)) (forget func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := &hook{f}
	c.hooks[part] = h
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.hooks[part] == h {
			delete(c.hooks, part)
		}
	}
}

// read runs f on the kind's cache under the read lock, after filling it when this is the kind's first reader.
func (c *Cache) read(k *resource.Kind, f func(*kindCache)) {
	part := resource.Prefix(k, "")
	c.mu.RLock()
	if kc := c.cached[part]; kc != nil && kc.filled {
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
func (c *Cache) enter(k *resource.Kind) *kindCache {
	k = k.Stored()
	part := resource.Prefix(k, "")
	if kc := c.cached[part]; kc != nil {
		if !kc.filled {
			c.fill(kc, part)
		}
		return kc
	}
	kc := &kindCache{kind: k, delivery: c.delivery, changes: &c.changes, subs: c.subscribers(k.GVK), indexes: map[string]*index{}}
	for name, f := range k.Indexes {
		kc.indexes[name] = newIndex(f)
	}
	c.cached[part] = kc
	c.fill(kc, part)
	return kc
}

// fillTimeout bounds how long the cache waits for the store while readers wait for the cache.
const fillTimeout = 10 * time.Second

// fill replaces the content of kc by what the store holds now and gives subscribers the difference. When the store fails,
// the next reader or event of the kind tries again. c.mu is held.
func (c *Cache) fill(kc *kindCache, prefix string) {
	ctx, cancel := context.WithTimeout(context.Background(), fillTimeout) // for all readers, so it is not the context of one of them
	defer cancel()
	page, open, err := sqlstore.ListSealed(ctx, c.store, prefix, "", 0, 0) // encrypted objects are in clear one after the other
	if kc.filled = err == nil; err != nil {
		c.log.Error("objects cannot be listed; controllers do not see them", "kind", kc.kind.GVK.String(), "error", err)
		return
	}
	kc.from = page.Rev
	kc.changed()
	in := newInterner()
	seen := make(map[string]struct{}, len(page.Entries))
	for _, e := range page.Entries {
		seen[e.Key] = struct{}{}
		if it, ok := kc.items.Get(e.Key); ok && it.rev == e.Rev {
			continue
		}
		if open != nil {
			if e.Value, err = open(e); err != nil {
				c.unreadable(e.Key, e.Rev, err)
				continue
			}
		}
		obj, err := c.load(kc.kind, e, in)
		if err != nil {
			c.unreadable(e.Key, e.Rev, err)
			continue
		}
		contain.Go(c.log, "objects/cache", e.Key, func() { kc.set(e.Key, cached{obj, e.Rev}) })
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

// load returns what the cache keeps of one entry, in as little memory as possible because it is kept for long: lists have no spare
// capacity, and strings are shared by way of in. An object that is decoded already is shared as it is.
func (c *Cache) load(k *resource.Kind, e sqlstore.Entry, in *interner) (kube.Object, error) {
	decode := k.Slim
	if decode == nil {
		if obj, ok := c.decoded.peek(e.Key, e.Rev); ok {
			return obj, nil
		}
		decode = func(raw []byte) (kube.Object, error) {
			whole, err := Decode(k, raw)
			if err != nil {
				return nil, err
			}
			return whole.DeepCopyObject().(kube.Object), nil
		}
	}
	return c.contained(e.Key, func() (kube.Object, error) {
		obj, err := decode(e.Value)
		if err == nil {
			in.object(obj)
		}
		return obj, err
	})
}

// kept returns what the cache keeps of raw, which is key's value at rev: the object, or the part of it that the kind names.
func (c *Cache) kept(k *resource.Kind, key string, rev sqlstore.Revision, raw []byte) (kube.Object, error) {
	if k.Slim == nil {
		return c.decoded.object(k, key, rev, raw)
	}
	return c.contained(key, func() (kube.Object, error) { return k.Slim(raw) })
}

// contained runs a decoder on key's value. A panic of it is returned as an error.
func (c *Cache) contained(key string, decode func() (kube.Object, error)) (obj kube.Object, err error) {
	err = contain.Do(c.log, "objects/decode", key, func() (err error) {
		obj, err = decode()
		return err
	})
	return obj, err
}

// set stores the object's new revision and notifies subscribers.
func (kc *kindCache) set(key string, it cached) {
	old, _ := kc.items.Set(key, it)
	kc.changed()
	for _, ix := range kc.indexes {
		ix.change(key, old.obj, it.obj)
	}
	for s := range kc.subs {
		kc.delivery.add(s, control.Change{GVK: kc.kind.GVK, Old: old.obj, New: it.obj})
	}
}

// changed makes the kind's version another one. Cache.mu is held for writing.
func (kc *kindCache) changed() { kc.version = kc.changes.Add(1) }

// drop removes a deleted object and notifies subscribers.
func (kc *kindCache) drop(key string) {
	old, ok := kc.items.Delete(key)
	if !ok {
		return
	}
	kc.changed()
	for _, ix := range kc.indexes {
		ix.change(key, old.obj, nil)
	}
	for s := range kc.subs {
		kc.delivery.add(s, control.Change{GVK: kc.kind.GVK, Old: old.obj})
	}
}

// Run applies the store's changes until ctx ends. It returns ctx's error, or the store's when the store closed. At most one
// Run at a time.
func (c *Cache) Run(ctx context.Context) error {
	c.feed.running.Store(true)
	defer c.feed.running.Store(false)
	c.waiters.begin()
	defer c.waiters.end()
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer func() { cancel(); wg.Wait() }()
	wg.Go(func() { c.followKinds(ctx) })
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

func (c *Cache) follow(ctx context.Context, from sqlstore.Revision) error {
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

// refill brings all kinds up to date after the feed fell behind the store's history.
func (c *Cache) refill(ctx context.Context) error {
	rev, err := c.store.Revision(ctx)
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.moveTo(rev)
	for _, kc := range c.cached {
		c.fill(kc, resource.Prefix(kc.kind, ""))
	}
	c.mu.Unlock()
	c.waiters.wake(rev)
	return nil
}

// apply applies one or more whole commits.
func (c *Cache) apply(events []sqlstore.Event) {
	objs := c.decodeAll(events)
	rev := events[len(events)-1].Rev
	c.mu.Lock()
	for i, ev := range events {
		contain.Go(c.log, "objects/cache", ev.Key, func() { c.applyOne(ev, objs[i]) })
	}
	c.moveTo(rev)
	c.mu.Unlock()
	c.waiters.wake(rev)
}

// applyOne applies one change. obj is what is kept of it, nil when the kind entered after decodeAll. c.mu is held.
func (c *Cache) applyOne(ev sqlstore.Event, obj kube.Object) {
	part := kindPart(ev.Key)
	if h := c.hooks[part]; h != nil {
		h.f(ev)
	}
	kc := c.cached[part]
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
		if obj, err = c.kept(kc.kind, ev.Key, ev.Rev, ev.Value); err != nil {
			c.unreadable(ev.Key, ev.Rev, err)
			return
		}
	}
	kc.set(ev.Key, cached{obj, ev.Rev})
}

// unreadable logs an object that loops will not see. The API still shows its bytes.
func (c *Cache) unreadable(key string, rev sqlstore.Revision, err error) {
	c.log.Error("stored object cannot be decoded; controllers do not see it", "key", key, "revision", int64(rev), "error", err)
}

// decodeAll makes outside the lock what will be kept.
func (c *Cache) decodeAll(events []sqlstore.Event) []kube.Object {
	kinds := make([]*resource.Kind, len(events))
	c.mu.RLock()
	for i, ev := range events {
		part := kindPart(ev.Key)
		if kc := c.cached[part]; kc != nil {
			kinds[i] = kc.kind
		}
	}
	c.mu.RUnlock()
	objs := make([]kube.Object, len(events))
	for i, ev := range events {
		if kinds[i] != nil && !ev.Deleted {
			objs[i], _ = c.kept(kinds[i], ev.Key, ev.Rev, ev.Value)
		}
	}
	return objs
}
