package objects

import (
	"context"
	"fmt"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/sqlstore"
)

// The cache keeps only a part of objects of some kinds: of definitions, and of all objects that a definition describes. Reads by
// control.Reader show that part. What depends on the rest of such an object reads it here, and decodes it each time.

// Whole returns an object as reads show it if they show all of it, otherwise as it is stored now. An object that reads do not show is
// not there. The object is shared: read-only.
func (c *Cache) Whole(ctx context.Context, gvk kube.GVK, namespace, name string) (obj kube.Object, ok bool, err error) {
	k, served := c.kinds.Lookup(gvk)
	if !served || k.Stored().Slim == nil {
		obj, ok = c.Get(gvk, namespace, name)
		return obj, ok, nil
	}
	k = k.Stored()
	key := resource.Key(k, namespace, name)
	var it cached
	c.read(k, func(kc *kindCache) { it, ok = kc.items.Get(key) })
	if !ok {
		return nil, false, nil
	}
	if obj, ok = c.decoded.peek(key, it.rev); ok {
		return obj, true, nil
	}
	e, ok, err := c.store.Get(ctx, key)
	if err != nil || !ok {
		return nil, false, err
	}
	if obj, err = c.Typed(k, key, e.Rev, e.Value); err != nil {
		return nil, false, fmt.Errorf("decode %s: %w", key, err)
	}
	return obj, true, nil
}

// Metadata returns an object with the metadata, but for managers and annotations, of the object that raw is, which is key's value at
// rev. It is cheaper than Typed where the cache keeps a part of the kind's objects.
func (c *Cache) Metadata(k *resource.Kind, key string, rev sqlstore.Revision, raw []byte) (kube.Object, error) {
	if k.Slim == nil {
		return c.Typed(k, key, rev, raw)
	}
	c.mu.RLock()
	kc := c.cached[kindPart(key)]
	if kc != nil {
		if it, ok := kc.items.Get(key); ok && it.rev == rev {
			c.mu.RUnlock()
			return it.obj, nil
		}
	}
	c.mu.RUnlock()
	return c.kept(k, key, rev, raw)
}
