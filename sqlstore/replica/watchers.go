package replica

import (
	"slices"

	"petrel.dev/petrel/sqlstore"
)

// watchers finds the watchers of a key without asking each: those of one prefix form a group, and a key is looked up
// once for each length that prefixes have. Thousands of watchers have a few dozen lengths.
type watchers struct {
	groups  map[string]*group
	lengths []length // ascending
	closed  bool
	// oldest is at most the revision of the oldest change that any watcher has pending.
	oldest sqlstore.Revision
}

type length struct{ bytes, groups int }

type group struct {
	members map[*watcher]struct{}
	changes []*Change // collected by deliver, empty between calls
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
func (ws *watchers) deliver(changes []*Change) {
	var touched []*group
	for _, c := range changes {
		for _, l := range ws.lengths {
			if l.bytes > len(c.Entry.Key) {
				break
			}
			g := ws.groups[c.Entry.Key[:l.bytes]]
			if g == nil {
				continue
			}
			if len(g.changes) == 0 {
				touched = append(touched, g)
			}
			g.changes = append(g.changes, c)
		}
	}
	before := changes[0].Entry.Rev - 1
	for _, g := range touched {
		for w := range g.members {
			w.offer(g.changes, before)
		}
		clear(g.changes) // let go of the values
		g.changes = g.changes[:0]
	}
	ws.oldest = min(ws.oldest, before+1)
}

// lag has watchers with changes pending that memory no longer has, at or before mem, read them from history when they come.
// So that it need not look at all watchers soon again, those in the older half of what memory has go too.
func (ws *watchers) lag(mem, rev sqlstore.Revision) {
	if ws.oldest > mem {
		return
	}
	keep := mem + (rev-mem)/2
	ws.oldest = rev + 1
	for _, g := range ws.groups {
		for w := range g.members {
			switch {
			case len(w.pending) == 0:
			case w.pending[0].Entry.Rev <= keep:
				w.pending, w.lagging = nil, true
			default:
				ws.oldest = min(ws.oldest, w.pending[0].Entry.Rev)
			}
		}
	}
}
