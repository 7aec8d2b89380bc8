package resource

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"sync"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/kubernetes/pkg/capabilities"
)

// Kinds is the set of served kinds. It may change at any time; readers take no lock, and see each change as a whole.
type Kinds struct {
	mu   sync.Mutex               // one writer at a time
	snap atomic.Pointer[snapshot] // never nil after New; replaced with mu held
}

// snapshot is the set as of one generation. It is immutable, except that the writer of the next one closes replaced.
type snapshot struct {
	kinds      []*Kind // in the order in which they were added
	byGVK      map[schema.GroupVersionKind]*Kind
	generation uint64
	replaced   chan struct{} // closed once a later snapshot is in place
}

// New returns a set of kinds. builtin.New has those of Kubernetes.
func New(kinds ...*Kind) (*Kinds, error) {
	// Validation would refuse privileged containers for all users; policy decides who may run them.
	capabilities.Setup(true, 0)
	s := &Kinds{}
	s.snap.Store(&snapshot{replaced: make(chan struct{})})
	if err := s.Add(kinds...); err != nil {
		return nil, err
	}
	return s, nil
}

// Add serves more kinds, all of them or none. A kind or a plural that is served already is an error, and a kind that is stored and
// has no Codec.
func (s *Kinds) Add(kinds ...*Kind) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.swap(append(slices.Clone(s.All()), kinds...))
}

// Replace removes kinds and serves others in one step, or does nothing. Readers see none of them missing in between.
func (s *Kinds) Replace(gone []schema.GroupVersionKind, kinds ...*Kind) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	kept := slices.DeleteFunc(slices.Clone(s.All()), func(k *Kind) bool { return slices.Contains(gone, k.GVK) })
	return s.swap(append(kept, kinds...))
}

// Remove ends the service of a kind; its stored objects stay, and are served again when the kind is. Removing a kind that is
// not served does nothing.
func (s *Kinds) Remove(gvk schema.GroupVersionKind) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.Lookup(gvk); !ok {
		return
	}
	kept := slices.DeleteFunc(slices.Clone(s.All()), func(k *Kind) bool { return k.GVK == gvk })
	if err := s.swap(kept); err != nil {
		panic(err) // a subset of a consistent set is consistent
	}
}

// swap puts the next snapshot in place. s.mu is held.
func (s *Kinds) swap(kinds []*Kind) error {
	next, err := index(kinds)
	if err != nil {
		return err
	}
	last := s.snap.Load()
	next.generation = last.generation + 1
	s.snap.Store(next)
	close(last.replaced)
	return nil
}

// Lookup finds a kind by its type.
func (s *Kinds) Lookup(gvk schema.GroupVersionKind) (*Kind, bool) {
	k, ok := s.snap.Load().byGVK[gvk]
	return k, ok
}

// All returns every kind, in the order in which they were added. The slice is shared: read-only.
func (s *Kinds) All() []*Kind { return s.snap.Load().kinds }

// OfResource returns the kind whose objects are stored under a group and plural; false when none is served.
func (s *Kinds) OfResource(gr schema.GroupResource) (schema.GroupVersionKind, bool) {
	for _, k := range s.All() {
		if !k.Virtual() && k.StoredAs == nil && k.Resource() == gr {
			return k.GVK, true
		}
	}
	return schema.GroupVersionKind{}, false
}

// Generation counts the changes. What is derived from All is up to date as long as the generation is the one that was read
// before All.
func (s *Kinds) Generation() uint64 { return s.snap.Load().generation }

// Changes yields the kinds as they are now, and again after changes until ctx ends: changes that follow each other while the
// loop's body runs come as one. The slices are shared: read-only.
func (s *Kinds) Changes(ctx context.Context) iter.Seq[[]*Kind] {
	return func(yield func([]*Kind) bool) {
		for ctx.Err() == nil {
			snap := s.snap.Load()
			if !yield(snap.kinds) {
				return
			}
			select {
			case <-ctx.Done():
			case <-snap.replaced:
			}
		}
	}
}

// index checks that kinds do not contradict each other.
func index(kinds []*Kind) (*snapshot, error) {
	s := &snapshot{
		kinds:    kinds,
		byGVK:    make(map[schema.GroupVersionKind]*Kind, len(kinds)),
		replaced: make(chan struct{}),
	}
	byResource := make(map[schema.GroupVersionResource]*Kind, len(kinds))
	for _, k := range kinds {
		if k.Codec == nil && !k.Virtual() {
			return nil, fmt.Errorf("kind %s has no codec, and its objects are stored", k.GVK)
		}
		if old, ok := s.byGVK[k.GVK]; ok {
			return nil, fmt.Errorf("kind %s is declared twice, as %s and as %s", k.GVK, old.Plural, k.Plural)
		}
		if k.Virtual() && (!slices.Equal(k.Verbs, []string{"create"}) && !slices.Equal(k.Verbs, []string{"get", "list"}) || k.StoredAs != nil || len(k.Subresources) > 0) {
			return nil, fmt.Errorf("kind %s stores nothing, so its verbs must be create, or get and list, and it can neither be a view nor have subresources", k.GVK)
		}
		gvr := k.GVR()
		if old, ok := byResource[gvr]; ok {
			return nil, fmt.Errorf("resource %s is declared twice, by %s and by %s", gvr, old.GVK, k.GVK)
		}
		s.byGVK[k.GVK], byResource[gvr] = k, k
	}
	return s, nil
}
