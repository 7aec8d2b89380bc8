package objects

import (
	"strings"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/sqlstore"
)

// Get implements control.Reader.
func (c *Cache) Get(gvk kube.GVK, namespace, name string) (obj kube.Object, ok bool) {
	k, served := c.kinds.Lookup(gvk)
	if !served {
		return nil, false
	}
	c.read(k, func(kc *kindCache) {
		var it cached
		it, ok = kc.items.Get(resource.Key(k, namespace, name))
		obj = it.obj
	})
	return obj, ok
}

// List implements control.Reader.
func (c *Cache) List(gvk kube.GVK, namespace string) (objs []kube.Object) {
	k, served := c.kinds.Lookup(gvk)
	if !served {
		return nil
	}
	c.read(k, func(kc *kindCache) {
		if kc.items.Len() == 0 {
			return
		}
		prefix := resource.Prefix(k, namespace)
		if namespace == "" {
			objs = make([]kube.Object, 0, kc.items.Len())
		}
		kc.items.Ascend(prefix, func(key string, it cached) bool {
			if !strings.HasPrefix(key, prefix) {
				return false
			}
			objs = append(objs, it.obj)
			return true
		})
	})
	return objs
}

// Index implements control.Reader. An index that the kind does not declare finds nothing.
func (c *Cache) Index(gvk kube.GVK, name, value string) (objs []kube.Object) {
	k, served := c.kinds.Lookup(gvk)
	if !served {
		return nil
	}
	c.read(k, func(kc *kindCache) {
		ix := kc.indexes[name]
		if ix == nil {
			return
		}
		for _, e := range ix.under[value] {
			objs = append(objs, e.obj)
		}
	})
	return objs
}

// Count returns how many objects of a kind reads show; ok is false as long as nobody has read the kind.
func (c *Cache) Count(k *resource.Kind) (n int, ok bool) {
	part := resource.Prefix(k, "")
	c.mu.RLock()
	defer c.mu.RUnlock()
	kc := c.cached[part]
	if kc == nil || !kc.filled {
		return 0, false
	}
	return kc.items.Len(), true
}

// Version returns a number that is another one after each change that reads of the kind show, for code that derives something from
// all its objects: it reads the version first, then the objects. 0 stands for a kind that is not served.
func (c *Cache) Version(gvk kube.GVK) (version uint64) {
	k, served := c.kinds.Lookup(gvk)
	if !served {
		return 0
	}
	c.read(k, func(kc *kindCache) { version = kc.version })
	return version
}

// At returns key's object when the cache holds exactly that revision.
func (c *Cache) At(key string, rev sqlstore.Revision) (kube.Object, bool) {
	part := kindPart(key)
	c.mu.RLock()
	defer c.mu.RUnlock()
	kc := c.cached[part]
	if kc == nil || kc.kind.Slim != nil { // it holds parts of objects
		return nil, false
	}
	it, ok := kc.items.Get(key)
	if !ok || it.rev != rev {
		return nil, false
	}
	return it.obj, true
}

// AtHand returns key's object as of rev when it has been decoded before and is still kept.
func (c *Cache) AtHand(key string, rev sqlstore.Revision) (kube.Object, bool) {
	if o, ok := c.At(key, rev); ok {
		return o, true
	}
	return c.decoded.peek(key, rev)
}

// Typed returns the object that raw is, which is key's value at rev. What it has to decode it keeps for other readers, unless it is a
// large object of a kind of which the cache keeps parts.
func (c *Cache) Typed(k *resource.Kind, key string, rev sqlstore.Revision, raw []byte) (kube.Object, error) {
	if o, ok := c.At(key, rev); ok {
		return o, nil
	}
	return c.decoded.object(k, key, rev, raw)
}

// Offer announces that obj, of the stored kind k, is about to be committed as enc under key. From now on obj is
// shared: read-only. Settle must follow, unless the result is nil: readers decode such an object themselves.
func (c *Cache) Offer(k *resource.Kind, key string, enc Encoded, obj kube.Object) *Handoff {
	return c.decoded.offer(k, key, enc, obj)
}

// Settle ends an offer: committed at rev, or (0) not at all. Afterwards the offered object carries its resourceVersion.
func (c *Cache) Settle(h *Handoff, rev sqlstore.Revision) { c.decoded.settle(h, rev) }
