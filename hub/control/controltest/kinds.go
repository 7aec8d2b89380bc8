package controltest

import (
	"context"
	"iter"
	"sync"

	"petrel.dev/petrel/hub/control"
)

// Kinds are stored kinds that a test chooses, and may change.
type Kinds struct {
	mu      sync.Mutex
	list    []control.StoredKind
	changed chan struct{} // closed when list is no longer current
}

var _ control.Kinds = (*Kinds)(nil)

// NewKinds returns kinds with the given ones.
func NewKinds(list ...control.StoredKind) *Kinds {
	return &Kinds{list: list, changed: make(chan struct{})}
}

// Set makes these the kinds.
func (k *Kinds) Set(list ...control.StoredKind) {
	k.mu.Lock()
	defer k.mu.Unlock()
	close(k.changed)
	k.list, k.changed = list, make(chan struct{})
}

// Changes implements control.Kinds.
func (k *Kinds) Changes(ctx context.Context) iter.Seq[[]control.StoredKind] {
	return func(yield func([]control.StoredKind) bool) {
		for ctx.Err() == nil {
			k.mu.Lock()
			list, changed := k.list, k.changed
			k.mu.Unlock()
			if !yield(list) {
				return
			}
			select {
			case <-ctx.Done():
			case <-changed:
			}
		}
	}
}
