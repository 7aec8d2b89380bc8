package replica

import (
	"context"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"petrel.dev/petrel/sqlstore"
)

// Bounds of the history that is kept in memory when there is a Source, from which older history is read.
const (
	maxRing      = 4096
	maxRingBytes = 8 << 20
)

// readWindow is how many revisions a lagging watcher looks at in one step.
const readWindow = 512

// history has what changed: the last changes from memory, older ones down to the compacted revision from the Source. The
// watchers belong to it, because what has changed and what they have been offered must move together.
type history struct {
	source       Source // nil: what is not in the ring is gone
	maxRing      int    // of changes
	maxRingBytes int    // as ringBytes counts

	mu        sync.RWMutex
	rev       sqlstore.Revision // the newest change
	compacted sqlstore.Revision // changes up to here may be gone; the state as of here is whole
	ring      []*Change         // the changes (rev-len(ring), rev], without a gap
	ringBytes int               // of values, and of those that they superseded
	marks     []mark            // by revision; the committer's own
	dead      int64             // bytes superseded so far, those of an earlier life included; the committer's own
	watchers  watchers
}

// mark says that rev was the newest revision at a time, and how much had been superseded by then.
type mark struct {
	at   time.Time
	rev  sqlstore.Revision
	dead int64
}

func newHistory(cfg Config) *history {
	h := &history{source: cfg.Source, rev: cfg.Rev, compacted: cfg.Compacted, dead: cfg.Dead, watchers: newWatchers()}
	switch {
	case cfg.Source == nil: // memory is all there is
		h.maxRing, h.maxRingBytes = cfg.Keep.Revisions, int(min(cfg.Keep.Bytes, math.MaxInt32))
		h.compacted = h.rev
	default:
		h.maxRing, h.maxRingBytes = maxRing, maxRingBytes
	}
	if cfg.Ring != 0 {
		h.maxRing = max(cfg.Ring, 0)
	}
	return h
}

func (h *history) oldest() sqlstore.Revision {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.compacted
}

// append adds one committed batch, which follows h.rev, offers it to the watchers and calls publish before either can be seen.
func (h *history) append(changes []*Change, publish func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ring = append(h.ring, changes...)
	for _, c := range changes {
		h.ringBytes += c.bytes()
		h.dead += c.dead()
	}
	drop := 0
	for drop < len(h.ring) && (len(h.ring)-drop > h.maxRing || h.ringBytes > h.maxRingBytes) {
		drop++
		h.ringBytes -= h.ring[drop-1].bytes()
	}
	h.rev = changes[len(changes)-1].Entry.Rev
	h.watchers.deliver(changes)
	h.drop(drop)
	publish()
}

// drop lets the n oldest changes go from memory. h.mu is held.
func (h *history) drop(n int) {
	if n == 0 {
		return
	}
	clear(h.ring[:n]) // append moves the slice only now and then
	h.ring = h.ring[n:]
	h.watchers.lag(h.inMemory(), h.rev)
	if h.source == nil {
		h.compacted = max(h.compacted, h.inMemory())
	}
}

// inMemory returns the revision after which the ring has every change. h.mu is held.
func (h *history) inMemory() sqlstore.Revision { return h.rev - sqlstore.Revision(len(h.ring)) }

// before returns how keys with the prefix differed at revision at from what they are at cur or later: key → its entry then,
// nil when it did not exist. Keys that did not change are left out.
func (h *history) before(ctx context.Context, prefix string, at, cur sqlstore.Revision) (map[string]*sqlstore.Entry, error) {
	h.mu.RLock()
	if at < h.compacted {
		err := &sqlstore.CompactedError{Asked: at, Oldest: h.compacted}
		h.mu.RUnlock()
		return nil, err
	}
	past := map[string]*sqlstore.Entry{}
	note := func(c *Change) bool {
		if _, seen := past[c.Entry.Key]; !seen {
			past[c.Entry.Key] = c.Prev
		}
		return true
	}
	mem := h.inMemory()
	if at >= mem {
		for _, c := range h.ring[at-mem:] {
			if strings.HasPrefix(c.Entry.Key, prefix) {
				note(c)
			}
		}
		h.mu.RUnlock()
		return past, nil
	}
	h.mu.RUnlock()
	if err := h.source.Changes(ctx, prefix, at, cur, note); err != nil {
		return nil, err
	}
	return past, h.stillKept(at)
}

// stillKept fails when history after from has been compacted. The compactor moves the horizon before it deletes, so what
// was read from the Source before a successful call is whole.
func (h *history) stillKept(from sqlstore.Revision) error {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if from < h.compacted {
		return &sqlstore.CompactedError{Asked: from, Oldest: h.compacted}
	}
	return nil
}

// since returns some events with the prefix after from, maybe none, and the commit boundary up to which it looked: about
// readWindow events, or nextBytes of values.
func (h *history) since(ctx context.Context, prefix string, from sqlstore.Revision) (events []sqlstore.Event, upTo sqlstore.Revision, err error) {
	h.mu.RLock()
	if from < h.compacted {
		err := &sqlstore.CompactedError{Asked: from, Oldest: h.compacted}
		h.mu.RUnlock()
		return nil, 0, err
	}
	cur, mem := h.rev, h.inMemory()
	bytes := 0
	if from >= mem {
		upTo = from
		for _, c := range h.ring[from-mem:] {
			if strings.HasPrefix(c.Entry.Key, prefix) {
				events = append(events, c.event())
				bytes += c.bytes()
			}
			if c.Last {
				upTo = c.Entry.Rev
				if len(events) >= readWindow || bytes >= nextBytes {
					break
				}
			}
		}
		h.mu.RUnlock()
		return events, upTo, nil
	}
	h.mu.RUnlock()
	if upTo, err = h.source.Boundary(ctx, from+readWindow, cur); err != nil {
		return nil, 0, err
	}
	var tx sqlstore.Revision
	err = h.source.Changes(ctx, prefix, from, upTo, func(c *Change) bool {
		if bytes >= nextBytes && c.Begun() != tx {
			upTo = c.Begun() - 1
			return false
		}
		tx = c.Begun()
		bytes += c.bytes()
		events = append(events, c.event())
		return true
	})
	if err != nil {
		return nil, 0, err
	}
	return events, upTo, h.stillKept(from)
}

// mark notes the time of a commit, a few dozen times within the time that history is kept, and within its bytes. Only the
// committer calls it and what follows.
func (h *history) mark(now time.Time) {
	h.marks = append(h.marks, mark{now, h.rev, h.dead})
}

// due reports whether it is time for another mark.
func (h *history) due(now time.Time, keep time.Duration, bytes int64) bool {
	if len(h.marks) == 0 {
		return true
	}
	last := h.marks[len(h.marks)-1]
	return now.Sub(last.at) >= keep/64 || h.dead-last.dead >= bytes/32
}

// horizon returns the revision up to which changes are older than keep, more than the newest limit, or beyond the newest bytes of
// what was superseded; have is how many bytes all that is kept has.
func (h *history) horizon(now time.Time, keep time.Duration, limit int, bytes, have int64) sqlstore.Revision {
	to := h.rev - sqlstore.Revision(limit)
	for _, m := range h.marks {
		if now.Sub(m.at) < keep && have <= bytes {
			break
		}
		to, have = max(to, m.rev), h.dead-m.dead
	}
	return max(to, h.compacted)
}

// superseded returns about how many bytes the changes after from have superseded. Marks before from are dropped.
func (h *history) superseded(from sqlstore.Revision) int64 {
	base := int64(0)
	known := 0
	for known < len(h.marks) && h.marks[known].rev <= from {
		base = h.marks[known].dead
		known++
	}
	h.marks = slices.Delete(h.marks, 0, max(0, known-1))
	return h.dead - base
}

// forget moves the compacted revision, before anything is deleted.
func (h *history) forget(to sqlstore.Revision) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.compacted = max(h.compacted, to)
	if h.source == nil {
		n := int(max(h.compacted-h.inMemory(), 0))
		for _, c := range h.ring[:n] {
			h.ringBytes -= c.bytes()
		}
		h.drop(n)
	}
}
