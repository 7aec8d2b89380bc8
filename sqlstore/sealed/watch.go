package sealed

import (
	"context"

	"petrel.dev/petrel/internal/seal"
	"petrel.dev/petrel/sqlstore"
)

// Watch is sqlstore.Store's.
func (s *Store) Watch(ctx context.Context, prefix string, from sqlstore.Revision) (sqlstore.Watcher, error) {
	w, err := s.inner.Watch(ctx, prefix, from)
	if err != nil || s.keys.Load() == nil {
		return w, err
	}
	return &watcher{Watcher: w, s: s}, nil
}

// watcher decrypts the events of the engine's.
type watcher struct {
	sqlstore.Watcher
	s *Store
}

// Next is sqlstore.Watcher's. History under a key that has been taken away since is compacted.
func (w *watcher) Next(ctx context.Context) ([]sqlstore.Event, error) {
	events, err := w.Watcher.Next(ctx)
	if err != nil {
		return nil, err
	}
	own := false // events is the engine's
	for i := range events {
		if !isSealed(events[i].Value) && !isSealed(events[i].Prev) {
			continue
		}
		if !own {
			events, own = append([]sqlstore.Event(nil), events...), true
		}
		e := &events[i]
		if e.Value, err = w.s.open(e.Key, e.Value); err != nil {
			return nil, w.s.past(ctx, e.Rev, err)
		}
		if e.Prev, err = w.s.open(e.Key, e.Prev); err != nil {
			return nil, w.s.past(ctx, e.Rev, err)
		}
	}
	return events, nil
}

func isSealed(value []byte) bool {
	_, ok := seal.By(value)
	return ok
}
