package objects

import (
	"context"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/contain"
	"petrel.dev/petrel/internal/kube"
)

// followKinds keeps the cache to the served kinds until ctx ends.
func (c *Cache) followKinds(ctx context.Context) {
	for all := range c.kinds.Changes(ctx) {
		contain.Go(c.log, "objects/kinds", "", func() { c.kindsChanged(all) })
	}
}

// kindsChanged drops what is cached of kinds that are gone, without a change for their subscribers: the objects are not deleted.
// A kind with a new declaration counts as removed and added. Subscribers of a kind that is added see each object as created.
func (c *Cache) kindsChanged(all []*resource.Kind) {
	served := make(map[kube.GVK]*resource.Kind, len(all))
	for _, k := range all {
		served[k.GVK] = k
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for part, kc := range c.cached {
		if served[kc.kind.GVK] != kc.kind {
			delete(c.cached, part)
			c.decoded.forget() // by another declaration the same bytes may be another object
		}
	}
	for gvk, subs := range c.subs {
		if k := served[gvk]; k != nil && len(subs) > 0 {
			c.enter(k)
		}
	}
}

// subscribers is the set of a kind's subscriptions. c.mu is held for writing.
func (c *Cache) subscribers(gvk kube.GVK) map[*subscription]struct{} {
	subs := c.subs[gvk]
	if subs == nil {
		subs = map[*subscription]struct{}{}
		c.subs[gvk] = subs
	}
	return subs
}
