package control

import (
	"strconv"
	"sync"

	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/internal/kube"
)

// Pending remembers what a loop has created and deleted until its cache shows it. A loop that counts (so many replicas
// wanted, so many there) would otherwise act twice on a cache that is a moment behind. It holds identities instead of
// counts, so it cannot drift: an entry goes when the cache has the object, or has passed the revision that made it.
//
// The loop calls Saw for every change of the kind from its Source, before it returns the keys.
type Pending struct {
	mu      sync.Mutex
	seen    uint64 // the largest revision among the changes seen
	created map[Key]map[types.UID]uint64
	deleted map[Key]map[types.UID]Key
}

// NewPending returns an empty Pending.
func NewPending() *Pending {
	return &Pending{created: map[Key]map[types.UID]uint64{}, deleted: map[Key]map[types.UID]Key{}}
}

// Saw notes that the cache has reached this change.
func (p *Pending) Saw(c Change) {
	rev := revision(c.Object())
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen = max(p.seen, rev)
}

// Created notes an object made on behalf of owner, as Create returned it.
func (p *Pending) Created(owner Key, obj kube.Object) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.created[owner] == nil {
		p.created[owner] = map[types.UID]uint64{}
	}
	p.created[owner][obj.GetUID()] = revision(obj)
}

// Deleted notes an object deleted on behalf of owner, as the cache had it.
func (p *Pending) Deleted(owner Key, obj kube.Object) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.deleted[owner] == nil {
		p.deleted[owner] = map[types.UID]Key{}
	}
	p.deleted[owner][obj.GetUID()] = KeyOf(obj)
}

// Settled tells whether the cache shows all that was done for owner. When it does not, a change that is still to come
// will bring the key up again.
func (p *Pending) Settled(owner Key, gvk kube.GVK, r Reader) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for uid, rev := range p.created[owner] {
		if rev <= p.seen {
			delete(p.created[owner], uid)
		}
	}
	for uid, key := range p.deleted[owner] {
		obj, ok := r.Get(gvk, key.Namespace, key.Name)
		if !ok || obj.GetUID() != uid || obj.GetDeletionTimestamp() != nil {
			delete(p.deleted[owner], uid)
		}
	}
	if len(p.created[owner]) == 0 {
		delete(p.created, owner)
	}
	if len(p.deleted[owner]) == 0 {
		delete(p.deleted, owner)
	}
	return p.created[owner] == nil && p.deleted[owner] == nil
}

// Forget drops all entries of an owner that is gone.
func (p *Pending) Forget(owner Key) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.created, owner)
	delete(p.deleted, owner)
}

// revision is an object's resourceVersion as the number that it is in Petrel's store.
func revision(obj kube.Object) uint64 {
	n, _ := strconv.ParseUint(obj.GetResourceVersion(), 10, 64)
	return n
}
