package dispatch

import (
	"errors"
	"time"

	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/wire"
)

// errSilent is the end of a session whose node owes an answer and sends nothing.
var errSilent = errors.New("no answer, and no sign of life")

// silent ends an open session whose node owes an answer and has sent nothing at all, not even a ping of its connection, for
// DarkGrace, and reports whether it did. So a dead connection is noticed when the hub has sent something to the node. One
// that is not used ends when the broker misses its keepalives, and an idle link carries nothing but those.
func (d *Dispatch) silent(now time.Time, n *node, c *conn) bool {
	c.doubt = time.Time{}
	since := c.s.Unanswered()
	if since.IsZero() || !c.s.Open() {
		return false
	}
	if end := latest(since, d.lastSeen(n, c)).Add(kube.DarkGrace); now.Before(end) {
		c.doubt = end
		return false
	}
	c.s.Fail(errSilent)
	return true
}

// lastSeen returns when the node of a session last sent anything, as far as is known.
func (d *Dispatch) lastSeen(n *node, c *conn) time.Time {
	return latest(c.s.LastSeen(), c.seen, d.cfg.Bus.LastSeen(n.id))
}

// seenAtEnd returns lastSeen for a session that has ended by err. Over a bus that does not see every packet, a node counts as seen
// until the bus reports that it is gone, except for one that did not answer.
func (d *Dispatch) seenAtEnd(now time.Time, n *node, c *conn, err error) time.Time {
	sees := !c.seen.IsZero() || !d.cfg.Bus.LastSeen(n.id).IsZero()
	if sees || unanswered(err) {
		return d.lastSeen(n, c)
	}
	return now
}

// unanswered reports whether a session has ended without its node knowing: its connection may still be open.
func unanswered(err error) bool { return errors.Is(err, errSilent) || errors.Is(err, wire.ErrDead) }
