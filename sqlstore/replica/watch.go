package replica

import (
	"context"

	"petrel.dev/petrel/sqlstore"
)

// maxPending is how many undelivered changes a watcher holds before it is left to read them from history when it comes. They
// are shared with the recent history in memory and go with it, so that a watcher that does not look keeps no value alive.
const maxPending = 1024

// nextBytes is about how many bytes of values, those before the change included, Next returns at once. A client that does not
// read holds one such portion.
const nextBytes = 1 << 20

// Watch implements sqlstore.Store.
func (l *Log) Watch(_ context.Context, prefix string, from sqlstore.Revision) (sqlstore.Watcher, error) {
	h := l.history
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.watchers.closed {
		return nil, sqlstore.ErrClosed
	}
	if from > h.rev || from < 0 {
		return nil, &sqlstore.FutureError{Asked: from, Current: h.rev}
	}
	if from < h.compacted {
		return nil, &sqlstore.CompactedError{Asked: from, Oldest: h.compacted}
	}
	w := &watcher{history: h, prefix: prefix, pos: from, lagging: from < h.rev, signal: make(chan struct{}, 1)}
	h.watchers.add(w)
	if w.lagging {
		w.wake()
	}
	return w, nil
}

// watcher is one open watch. Its fields but signal are guarded by history.mu. Next is for one goroutine at a time.
type watcher struct {
	history *history
	prefix  string
	signal  chan struct{} // capacity 1: look again

	pos     sqlstore.Revision // every event up to here has been returned, unless pending is empty: then up to history.rev
	pending []*Change         // follow pos without a gap; empty while lagging
	lagging bool              // what follows pos must be read from history
	closed  bool
}

// portion takes from pending what one Next returns, up to a commit boundary. history.mu is held.
func (w *watcher) portion() (events []sqlstore.Event) {
	bytes, n := 0, 0
	for n < len(w.pending) {
		c := w.pending[n]
		if n > 0 && bytes >= nextBytes && c.Begun() != w.pending[n-1].Begun() {
			break
		}
		bytes += c.bytes()
		n++
	}
	if n == 0 {
		return nil
	}
	events = make([]sqlstore.Event, n)
	for i, c := range w.pending[:n] {
		events[i] = c.event()
	}
	if n == len(w.pending) {
		w.pending = nil
		return events
	}
	w.pos = w.pending[n].Begun() - 1
	w.pending = w.pending[n:]
	return events
}

func (w *watcher) wake() {
	select {
	case w.signal <- struct{}{}:
	default:
	}
}

// offer gives the watcher the changes of one batch. history.mu is held; rev is the last revision before the batch.
func (w *watcher) offer(changes []*Change, rev sqlstore.Revision) {
	if !w.lagging {
		if len(w.pending) == 0 {
			w.pos = rev
		}
		if len(w.pending)+len(changes) > maxPending {
			w.pending, w.lagging = nil, true
		} else {
			w.pending = append(w.pending, changes...)
		}
	}
	w.wake()
}

// Next implements sqlstore.Watcher. The events are the caller's, what they point to is shared.
func (w *watcher) Next(ctx context.Context) ([]sqlstore.Event, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		events, err := w.poll(ctx)
		if err != nil || len(events) > 0 {
			return events, err
		}
		select {
		case <-w.signal:
		case <-ctx.Done():
		}
	}
}

// poll returns what there is now: nothing when the watcher has seen everything.
func (w *watcher) poll(ctx context.Context) ([]sqlstore.Event, error) {
	h := w.history
	for {
		h.mu.Lock()
		if w.closed {
			h.mu.Unlock()
			return nil, sqlstore.ErrClosed
		}
		if !w.lagging {
			events := w.portion()
			if len(w.pending) == 0 {
				w.pos = h.rev
			}
			h.mu.Unlock()
			return events, nil
		}
		from := w.pos
		h.mu.Unlock()

		// A portion is small and is read to its end, whatever becomes of ctx: half of one would have to be read again.
		events, upTo, err := h.since(context.WithoutCancel(ctx), w.prefix, from)
		if err != nil {
			return nil, err
		}
		h.mu.Lock()
		w.pos = upTo
		w.lagging = upTo < h.rev
		h.mu.Unlock()
		if len(events) > 0 {
			return events, nil
		}
	}
}

// Revision implements sqlstore.Watcher.
func (w *watcher) Revision() sqlstore.Revision {
	w.history.mu.RLock()
	defer w.history.mu.RUnlock()
	if w.lagging || len(w.pending) > 0 {
		return w.pos
	}
	return w.history.rev
}

// Close implements sqlstore.Watcher.
func (w *watcher) Close() {
	w.history.mu.Lock()
	defer w.history.mu.Unlock()
	w.history.watchers.remove(w)
	w.close()
}

func (w *watcher) close() {
	w.closed, w.pending = true, nil
	w.wake()
}

func (h *history) closeWatchers() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.watchers.closed = true
	for _, g := range h.watchers.groups {
		for w := range g.members {
			w.close()
		}
	}
	h.watchers.groups, h.watchers.lengths = nil, nil
}
