package replica

import "petrel.dev/petrel/sqlstore"

// Batch applies transactions to a Log one after the other, invisible to readers until it is published, and remembers how to
// take them back. Only one Batch of a Log may be open at a time, and it is for one goroutine.
type Batch struct {
	log     *Log
	rev     sqlstore.Revision
	changes []*Change
	grown   int64 // by how much the room's living bytes have grown
}

// Begin starts a batch on what has been published. It ends with Publish or Undo.
func (l *Log) Begin() *Batch { return &Batch{log: l, rev: l.Rev()} }

// Add applies one transaction and returns the revision of each op, or leaves everything as it was: *sqlstore.ConflictError,
// *sqlstore.FullError. The ops have passed sqlstore.Check.
func (b *Batch) Add(ops []sqlstore.Op) ([]sqlstore.Revision, error) {
	first, rev := len(b.changes), b.rev
	index, room := b.log.index, &b.log.Room
	revs := make([]sqlstore.Revision, len(ops))
	var few [2]tenantGrowth
	g := growth{frees: true, small: true, tenants: few[:0]}
	for i := range ops {
		op := &ops[i]
		old, exists := index.get(op.Key)
		var have sqlstore.Revision
		if exists {
			have = old.Rev
		}
		if op.If != sqlstore.AnyRevision && op.If != have || op.Delete && !exists {
			b.undoFrom(first)
			b.rev = rev
			return nil, &sqlstore.ConflictError{Key: op.Key, Have: have, Want: op.If}
		}
		b.rev++
		e := &sqlstore.Entry{Key: op.Key, Value: valueAt(op, b.rev), Rev: b.rev, Created: b.rev}
		if exists {
			e.Key, e.Created = old.Key, old.Created // one copy of the key is enough
		}
		g.count(op, old, e, room)
		if op.Delete {
			index.remove(op.Key)
			if room.Frugal {
				e.Value = nil // watchers have the value before
			}
		} else {
			index.Put(e)
		}
		b.changes = append(b.changes, &Change{Entry: e, Deleted: op.Delete, Pos: i, Last: i == len(ops)-1, Prev: old})
		revs[i] = b.rev
	}
	if err := room.refuses(g); err != nil {
		b.undoFrom(first)
		b.rev = rev
		return nil, err
	}
	room.living += g.bytes
	b.grown += g.bytes
	for _, t := range g.tenants {
		room.add(t.name, t.bytes)
	}
	return revs, nil
}

// Changes returns what the batch would publish, in order of revisions: what an engine makes durable first.
func (b *Batch) Changes() []*Change { return b.changes }

// Publish shows the batch's changes to readers and watchers, all at once.
func (b *Batch) Publish() {
	if len(b.changes) == 0 {
		return
	}
	next := &state{index: b.log.index.snapshot(), rev: b.rev}
	b.log.history.append(b.changes, func() { b.log.state.Store(next) })
}

// Undo takes all of the batch back.
func (b *Batch) Undo() {
	for _, c := range b.changes {
		bytes := int64(0)
		if c.Prev != nil {
			bytes = Cost(c.Prev)
		}
		if !c.Deleted {
			bytes -= Cost(c.Entry)
		}
		b.log.Room.add(b.log.Room.tenantOf(c.Entry.Key), bytes)
	}
	b.undoFrom(0)
	b.log.Room.living -= b.grown
}

func (b *Batch) undoFrom(first int) {
	for i := len(b.changes) - 1; i >= first; i-- {
		b.log.index.restore(b.changes[i].Entry.Key, b.changes[i].Prev)
	}
	b.changes = b.changes[:first]
}
