package sqlstore

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"
)

// Bounds of the history that is kept decoded in memory; older history is read from the file.
const (
	maxRing      = 4096
	maxRingBytes = 8 << 20
)

// readWindow is how many revisions a lagging watcher looks at in one step.
const readWindow = 512

// history knows what changed: the last changes from memory, older ones down to the compacted revision from the file. It
// also wakes the watchers, because "what has changed" and "who has been told" must move together.
type history struct {
	read *reads
	// maxRing bounds the ring; a field so that tests can send every reader to the file.
	maxRing int

	mu        sync.RWMutex
	rev       Revision  // the newest change
	compacted Revision  // changes up to here may be gone; the state as of here is whole
	ring      []*change // the changes (rev-len(ring), rev], without a gap
	ringBytes int       // of values, and of those that they superseded
	marks     []mark    // by revision; the committer's own
	dead      int64     // bytes superseded so far, those of an earlier life included; the committer's own
	watchers  watchers
}

// mark says that rev was the newest revision at a time, and how much had been superseded by then.
type mark struct {
	at   time.Time
	rev  Revision
	dead int64
}

func newHistory(rev, compacted Revision, read *reads) *history {
	return &history{read: read, maxRing: maxRing, rev: rev, compacted: compacted, watchers: newWatchers()}
}

func (h *history) oldest() Revision {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.compacted
}

// append adds one committed batch, which follows h.rev, tells the watchers and calls publish before anybody can see either.
func (h *history) append(changes []*change, publish func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ring = append(h.ring, changes...)
	for _, c := range changes {
		h.ringBytes += c.bytes()
		h.dead += c.dead()
	}
	drop := 0
	for drop < len(h.ring) && (len(h.ring)-drop > h.maxRing || h.ringBytes > maxRingBytes) {
		h.ringBytes -= h.ring[drop].bytes()
		h.ring[drop] = nil // append below moves the slice only now and then
		drop++
	}
	h.ring = h.ring[drop:]
	h.rev = changes[len(changes)-1].entry.Rev
	h.watchers.deliver(changes)
	if drop > 0 {
		h.watchers.lag(h.inMemory(), h.rev)
	}
	publish()
}

// inMemory is the revision after which the ring has every change. h.mu is held.
func (h *history) inMemory() Revision { return h.rev - Revision(len(h.ring)) }

// before tells how keys with the prefix differed at revision at from what they are at cur or later: key → its entry then,
// nil when it did not exist. Keys that did not change are left out.
func (h *history) before(ctx context.Context, prefix string, at, cur Revision) (map[string]*Entry, error) {
	h.mu.RLock()
	if at < h.compacted {
		err := &CompactedError{Asked: at, Oldest: h.compacted}
		h.mu.RUnlock()
		return nil, err
	}
	past := map[string]*Entry{}
	note := func(c *change) bool {
		if _, seen := past[c.entry.Key]; !seen {
			past[c.entry.Key] = c.prev
		}
		return true
	}
	mem := h.inMemory()
	if at >= mem {
		for _, c := range h.ring[at-mem:] {
			if strings.HasPrefix(c.entry.Key, prefix) {
				note(c)
			}
		}
		h.mu.RUnlock()
		return past, nil
	}
	h.mu.RUnlock()
	if err := h.read.changes(ctx, prefix, at, cur, note); err != nil {
		return nil, err
	}
	return past, h.stillKept(at)
}

// stillKept fails when history after from has been compacted. The compactor moves the horizon before it deletes, so what
// was read from the file before a successful call is whole.
func (h *history) stillKept(from Revision) error {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if from < h.compacted {
		return &CompactedError{Asked: from, Oldest: h.compacted}
	}
	return nil
}

// since returns some events with the prefix after from, maybe none, and the commit boundary up to which it looked: about
// readWindow events, or nextBytes of values.
func (h *history) since(ctx context.Context, prefix string, from Revision) (events []Event, upTo Revision, err error) {
	h.mu.RLock()
	if from < h.compacted {
		err := &CompactedError{Asked: from, Oldest: h.compacted}
		h.mu.RUnlock()
		return nil, 0, err
	}
	cur, mem := h.rev, h.inMemory()
	bytes := 0
	if from >= mem {
		upTo = from
		for _, c := range h.ring[from-mem:] {
			if strings.HasPrefix(c.entry.Key, prefix) {
				events = append(events, c.event())
				bytes += c.bytes()
			}
			if c.last {
				upTo = c.entry.Rev
				if len(events) >= readWindow || bytes >= nextBytes {
					break
				}
			}
		}
		h.mu.RUnlock()
		return events, upTo, nil
	}
	h.mu.RUnlock()
	if upTo, err = h.read.boundary(ctx, from+readWindow, cur); err != nil {
		return nil, 0, err
	}
	var tx Revision
	err = h.read.changes(ctx, prefix, from, upTo, func(c *change) bool {
		if bytes >= nextBytes && c.begun() != tx {
			upTo = c.begun() - 1
			return false
		}
		tx = c.begun()
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

// horizon is the revision up to which changes are older than keep, more than the newest limit, or beyond the newest bytes of
// what was superseded; have is how many bytes all that is kept has.
func (h *history) horizon(now time.Time, keep time.Duration, limit int, bytes, have int64) Revision {
	to := h.rev - Revision(limit)
	for _, m := range h.marks {
		if now.Sub(m.at) < keep && have <= bytes {
			break
		}
		to, have = max(to, m.rev), h.dead-m.dead
	}
	return max(to, h.compacted)
}

// superseded is about how many bytes the changes after from have superseded. Marks before from are dropped.
func (h *history) superseded(from Revision) int64 {
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
func (h *history) forget(to Revision) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.compacted = max(h.compacted, to)
}
