package control

import (
	"context"
	"iter"

	"petrel.dev/petrel/internal/contain"
	"petrel.dev/petrel/internal/kube"
)

// StoredKind is a kind whose objects are stored as themselves, with what loops over every kind need.
type StoredKind struct {
	GVK        kube.GVK
	Plural     string // "pods", for messages
	Namespaced bool
	// Expires is true if its objects are deleted after some time. No loop waits for that, because following them would cost more than it
	// is worth.
	Expires bool
	// NoGarbageCollection says that owner references lead neither to its objects nor from them.
	NoGarbageCollection bool
}

// Kinds are the kinds that are stored. They may change at any time.
type Kinds interface {
	// Changes yields the kinds as they are now, and again after changes until ctx ends. Changes that follow each other while the
	// loop's body runs may come as one. The slices are shared: read-only.
	Changes(ctx context.Context) iter.Seq[[]StoredKind]
}

// EveryKind makes a loop follow all stored kinds as they come and go. All fields are required.
type EveryKind struct {
	Kinds Kinds
	// Source returns how a kind is followed; ok is false for one that is not.
	Source func(StoredKind) (s Source, ok bool)
	// Changed is called with all kinds before the first reconcile, and after each change before objects of a new kind are
	// queued. It is called by one goroutine, beside reconciles, and must be quick.
	Changed func(now []StoredKind)
}

// Follow adds a source until ctx ends, also while the loop runs. Each existing object counts as created then.
func (l *Loop) Follow(ctx context.Context, s Source) {
	l.init()
	l.Client.Subscribe(ctx, func(c Change) { l.offer(s, c) }, s.GVK)
}

// followKinds keeps a source for each stored kind until ctx ends. It calls ready once the first kinds are followed.
func (l *Loop) followKinds(ctx context.Context, ready func()) {
	followed := map[kube.GVK]context.CancelFunc{}
	defer func() {
		for _, end := range followed {
			end()
		}
	}()
	for now := range l.Every.Kinds.Changes(ctx) {
		contain.Go(l.Log, "control/"+l.Name+"/kinds", "", func() { l.followNow(ctx, followed, now) })
		ready()
	}
}

// followNow brings followed, the kinds with sources and how these end, to what is stored now.
func (l *Loop) followNow(ctx context.Context, followed map[kube.GVK]context.CancelFunc, now []StoredKind) {
	stored := make(map[kube.GVK]bool, len(now))
	for _, k := range now {
		stored[k.GVK] = true
	}
	for gvk, end := range followed {
		if !stored[gvk] {
			end()
			delete(followed, gvk)
		}
	}
	l.Every.Changed(now)
	for _, k := range now {
		if followed[k.GVK] != nil {
			continue
		}
		if s, ok := l.Every.Source(k); ok {
			own, end := context.WithCancel(ctx)
			followed[k.GVK] = end
			l.Follow(own, s)
		}
	}
}
