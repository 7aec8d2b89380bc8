package sqlstore

import (
	"context"
	"slices"
)

// maxPending is how many undelivered changes a watcher holds before it is left to read them from history when it comes. They
// are shared with the recent history in memory and go with it, so that a watcher that does not look keeps no value alive.
const maxPending = 1024

// nextBytes is about how many bytes of values, those before the change included, Next returns at once. A client that does not
// read holds one such portion.
const nextBytes = 1 << 20

// Watch implements Store.
func (db *DB) Watch(_ context.Context, prefix string, from Revision) (Watcher, error) {
	if db.closing.Err() != nil {
		return nil, ErrClosed
	}
	h := db.history
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.watchers.closed {
		return nil, ErrClosed
	}
	if from > h.rev || from < 0 {
		return nil, &FutureError{Asked: from, Current: h.rev}
	}
	if from < h.compacted {
		return nil, &CompactedError{Asked: from, Oldest: h.compacted}
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

	pos     Revision  // every event up to here has been returned, unless pending is empty: then up to history.rev
	pending []*change // follow pos without a gap; empty while lagging
	lagging bool      // what follows pos must be read from history
	closed  bool
}

// portion takes from pending what one Next returns, up to a commit boundary. history.mu is held.
func (w *watcher) portion() (events []Event) {
	bytes, n := 0, 0
	for n < len(w.pending) {
		c := w.pending[n]
		if n > 0 && bytes >= nextBytes && c.begun() != w.pending[n-1].begun() {
			break
		}
		bytes += c.bytes()
		n++
	}
	if n == 0 {
		return nil
	}
	events = make([]Event, n)
	for i, c := range w.pending[:n] {
		events[i] = c.event()
	}
	if n == len(w.pending) {
		w.pending = nil
		return events
	}
	w.pos = w.pending[n].begun() - 1
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
func (w *watcher) offer(changes []*change, rev Revision) {
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

// Next implements Watcher. The events are the caller's, what they point to is shared.
func (w *watcher) Next(ctx context.Context) ([]Event, error) {
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
func (w *watcher) poll(ctx context.Context) ([]Event, error) {
	h := w.history
	for {
		h.mu.Lock()
		if w.closed {
			h.mu.Unlock()
			return nil, ErrClosed
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

// Revision implements Watcher.
func (w *watcher) Revision() Revision {
	w.history.mu.RLock()
	defer w.history.mu.RUnlock()
	if w.lagging || len(w.pending) > 0 {
		return w.pos
	}
	return w.history.rev
}

// Close implements Watcher.
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

// watchers finds the watchers of a key without asking each: those of one prefix form a group, and a key is looked up
// once for each length that prefixes have. Thousands of watchers have a few dozen lengths.
type watchers struct {
	groups  map[string]*group
	lengths []length // ascending
	closed  bool
	// oldest is at most the revision of the oldest change that any watcher has pending.
	oldest Revision
}

type length struct{ bytes, groups int }

type group struct {
	members map[*watcher]struct{}
	changes []*change // collected by deliver, empty between calls
}

func newWatchers() watchers { return watchers{groups: map[string]*group{}} }

func (ws *watchers) find(n int) (int, bool) {
	return slices.BinarySearchFunc(ws.lengths, n, func(l length, n int) int { return l.bytes - n })
}

func (ws *watchers) add(w *watcher) {
	g := ws.groups[w.prefix]
	if g == nil {
		g = &group{members: map[*watcher]struct{}{}}
		ws.groups[w.prefix] = g
		i, found := ws.find(len(w.prefix))
		if !found {
			ws.lengths = slices.Insert(ws.lengths, i, length{bytes: len(w.prefix)})
		}
		ws.lengths[i].groups++
	}
	g.members[w] = struct{}{}
}

func (ws *watchers) remove(w *watcher) {
	g := ws.groups[w.prefix]
	if g == nil {
		return
	}
	if _, member := g.members[w]; !member {
		return
	}
	delete(g.members, w)
	if len(g.members) > 0 {
		return
	}
	delete(ws.groups, w.prefix)
	if i, found := ws.find(len(w.prefix)); found {
		if ws.lengths[i].groups--; ws.lengths[i].groups == 0 {
			ws.lengths = slices.Delete(ws.lengths, i, i+1)
		}
	}
}

// deliver offers each change to the watchers whose prefix its key has.
func (ws *watchers) deliver(changes []*change) {
	var touched []*group
	for _, c := range changes {
		for _, l := range ws.lengths {
			if l.bytes > len(c.entry.Key) {
				break
			}
			g := ws.groups[c.entry.Key[:l.bytes]]
			if g == nil {
				continue
			}
			if len(g.changes) == 0 {
				touched = append(touched, g)
			}
			g.changes = append(g.changes, c)
		}
	}
	before := changes[0].entry.Rev - 1
	for _, g := range touched {
		for w := range g.members {
			w.offer(g.changes, before)
		}
		clear(g.changes) // let go of the values
		g.changes = g.changes[:0]
	}
	ws.oldest = min(ws.oldest, before+1)
}

// lag has watchers with changes pending that memory no longer has, at or before mem, read them from the file when they come.
// So that it need not look at all watchers soon again, those in the older half of what memory has go too.
func (ws *watchers) lag(mem, rev Revision) {
	if ws.oldest > mem {
		return
	}
	keep := mem + (rev-mem)/2
	ws.oldest = rev + 1
	for _, g := range ws.groups {
		for w := range g.members {
			switch {
			case len(w.pending) == 0:
			case w.pending[0].entry.Rev <= keep:
				w.pending, w.lagging = nil, true
			default:
				ws.oldest = min(ws.oldest, w.pending[0].entry.Rev)
			}
		}
	}
}
