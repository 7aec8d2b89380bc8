package registry

import (
	"context"
	"iter"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/registry/fieldmanager"
	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

// Kinds are the served kinds, which may change while the registry runs; *resource.Kinds is one.
type Kinds interface {
	fieldmanager.Kinds
	// Changes yields the kinds as they are now, and again after changes until ctx ends.
	Changes(ctx context.Context) iter.Seq[[]*resource.Kind]
}

// StoredKinds returns the kinds that loops follow: those whose objects are stored as themselves.
func (r *Registry) StoredKinds() control.Kinds { return storedKinds{r.kinds} }

// storedKinds shows the registry's kinds as control.Kinds.
type storedKinds struct{ kinds Kinds }

// Changes implements control.Kinds.
func (s storedKinds) Changes(ctx context.Context) iter.Seq[[]control.StoredKind] {
	return func(yield func([]control.StoredKind) bool) {
		for all := range s.kinds.Changes(ctx) {
			stored := make([]control.StoredKind, 0, len(all))
			for _, k := range all {
				if k.StoredAs == nil && !k.Virtual() {
					stored = append(stored, control.StoredKind{GVK: k.GVK, Plural: k.Plural, Namespaced: k.Namespaced,
						Expires: k.TTL != nil, NoGarbageCollection: k.NoGarbageCollection})
				}
			}
			if !yield(stored) {
				return
			}
		}
	}
}

// kindFor returns the declaration of gvk, nil when it is not served.
func (r *Registry) kindFor(gvk kube.GVK) *resource.Kind {
	k, _ := r.kinds.Lookup(gvk)
	return k
}
