package replica

import (
	"strconv"

	"petrel.dev/petrel/sqlstore"
)

// Change is one revision, as an engine keeps it and as the history holds it. It is immutable once published.
type Change struct {
	Entry   *sqlstore.Entry // for a deletion, Value is the last state that came with the Op
	Deleted bool
	Pos     int             // position within its transaction, from 0
	Last    bool            // last of its transaction: a commit boundary
	Prev    *sqlstore.Entry // what it superseded, nil if nothing
}

// Begun returns the revision that its transaction began with.
func (c *Change) Begun() sqlstore.Revision { return c.Entry.Rev - sqlstore.Revision(c.Pos) }

// bytes returns what the change keeps in memory: its value, and the one before.
func (c *Change) bytes() int {
	n := len(c.Entry.Value)
	if c.Prev != nil {
		n += len(c.Prev.Value)
	}
	return n
}

// dead returns what the change has made superfluous in the engine: what it superseded, and itself when it is a deletion.
func (c *Change) dead() (n int64) {
	if c.Prev != nil {
		n = Cost(c.Prev)
	}
	if c.Deleted {
		n += Cost(c.Entry)
	}
	return n
}

func (c *Change) event() sqlstore.Event {
	e := sqlstore.Event{Key: c.Entry.Key, Rev: c.Entry.Rev, Created: c.Entry.Created, Deleted: c.Deleted, Value: c.Entry.Value}
	if c.Prev != nil {
		e.Prev = c.Prev.Value
	}
	return e
}

// valueAt returns what the op stores as revision rev.
func valueAt(op *sqlstore.Op, rev sqlstore.Revision) []byte {
	if op.RevAt < 0 || op.Value == nil {
		return op.Value
	}
	var digits [20]byte
	d := strconv.AppendInt(digits[:0], int64(rev), 10)
	v := make([]byte, 0, len(op.Value)+len(d))
	v = append(v, op.Value[:op.RevAt]...)
	v = append(v, d...)
	return append(v, op.Value[op.RevAt:]...)
}
