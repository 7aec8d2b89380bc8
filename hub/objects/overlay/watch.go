package overlay

import (
	"context"
	"strings"

	"petrel.dev/petrel/hub/objects"
	"petrel.dev/petrel/sqlstore"
)

// Watch implements sqlstore.Store. A watch of both stored and synthesized keys is one watch of the log, so that its events
// come in the order of commits.
func (s *Store) Watch(ctx context.Context, prefix string, from sqlstore.Revision) (sqlstore.Watcher, error) {
	ranges, covers := s.below(prefix), prefix
	if r := s.at(prefix); r != nil {
		ranges, covers = []*keyRange{r}, r.sourceKey(prefix)
	}
	if len(ranges) == 0 {
		return s.Store.Watch(ctx, prefix, from)
	}
	for _, r := range ranges {
		if !strings.HasPrefix(covers, r.source) {
			covers = commonPrefix(covers, r.source)
		}
	}
	w, err := s.Store.Watch(ctx, covers, from)
	if err != nil {
		return nil, err
	}
	return &watcher{Watcher: w, s: s, ranges: ranges, prefix: prefix}, nil
}

// watcher shows the events of synthesized objects. Like any Watcher it is used by one goroutine.
type watcher struct {
	sqlstore.Watcher // below, of more than is wanted
	s                *Store
	ranges           []*keyRange
	prefix           string
}

// Next implements sqlstore.Watcher.
func (w *watcher) Next(ctx context.Context) ([]sqlstore.Event, error) {
	for {
		events, err := w.Watcher.Next(ctx)
		if err != nil {
			return nil, err
		}
		if out := w.translate(events); len(out) > 0 {
			return out, nil
		}
	}
}

// translate returns the wanted events of stored keys, and those of objects that are made from a changed source.
func (w *watcher) translate(events []sqlstore.Event) []sqlstore.Event {
	out := make([]sqlstore.Event, 0, len(events))
	for _, ev := range events {
		if strings.HasPrefix(ev.Key, w.prefix) && w.s.at(ev.Key) == nil {
			out = append(out, ev)
		}
		for _, r := range w.ranges {
			if !strings.HasPrefix(ev.Key, r.source) || !strings.HasPrefix(r.keyOf(ev.Key), w.prefix) {
				continue
			}
			made, err := w.s.event(r, ev)
			if err != nil {
				w.s.log.Error("synthesized object cannot be shown to a watch", "key", ev.Key, "revision", int64(ev.Rev), "error", err)
				continue
			}
			out = append(out, made)
		}
	}
	return out
}

// event returns the event of the object that is made from the source of ev. It is made once: as it was before the change the
// object is the same but for its revision.
func (s *Store) event(r *keyRange, ev sqlstore.Event) (sqlstore.Event, error) {
	out := ev
	out.Key, out.Value, out.Prev = r.keyOf(ev.Key), nil, nil
	before := objects.StoredRevision(ev.Prev)
	var err error
	switch {
	case ev.Value != nil:
		if out.Value, err = r.value(s.objects, ev.Key, ev.Rev, ev.Value); err != nil {
			return out, err
		}
		if ev.Prev != nil {
			out.Prev = objects.WithRevision(out.Value, before)
		}
	case ev.Prev != nil: // a deletion that kept no last state
		if out.Prev, err = r.value(s.objects, ev.Key, before, ev.Prev); err != nil {
			return out, err
		}
	}
	return out, nil
}
