package dispatch

import (
	"time"

	"petrel.dev/petrel/hub/dispatch/session"
	"petrel.dev/petrel/hub/dispatch/tokens"
	"petrel.dev/petrel/internal/wire"
)

// node is one device. It is owned by the loop's goroutine.
type node struct {
	id    string             // in topics
	name  string             // of its Node; empty before its first welcome
	conns map[wire.Tag]*conn // its sessions and handshakes, at most maxConns
	// current is the one open session; then byName[name] is this node. All others are handshakes, or sessions that are being
	// ended. nil: none.
	current *conn

	epoch  uint64       // of the latest accepted session; grows only
	up     *wire.Copy   // reports; outlives sessions, never nil
	seen   time.Time    // when it was last, as of the end of its last session
	nudged time.Time    // last nudge
	tokens *tokens.Book // of its pods; outlives sessions, never nil

	// Valid while current is set.
	renew   time.Time // when the next of its tokens is due; zero: none is
	down    *wire.Sender
	streams map[string]*wire.Endpoint // by id
}

// conn is one session, or handshake, with what the loop keeps about it. It is owned by the loop's goroutine.
type conn struct {
	s      *session.Session
	tag    wire.Tag
	began  time.Time
	queued bool                              // is in Dispatch.queue
	hello  *wire.Hello                       // nil: not received yet
	alive  []func(now time.Time, alive bool) // to call with the result of the probe
	// seen is when the bus had last seen the node when it reported that the connection is gone; zero before, or unknown.
	seen time.Time
	// doubt is when to check whether a node that owes an answer has sent anything; zero: it owes none.
	doubt time.Time
}

// queued is a session that may have something to do.
type queued struct {
	node *node
	conn *conn
}

// keepaliveOf returns the longest time between two packets of a session's node.
func keepaliveOf(c *conn) time.Duration { return time.Duration(c.hello.Keepalive) * time.Second }

// lastWords reports whether a live frame is the device's own. Before the hello that is known only over a bus that sees who publishes.
func (c *conn) lastWords(f inFrame) bool {
	if c.hello == nil {
		return !f.seen.IsZero()
	}
	return wire.LastWordsMatch(f.b, c.hello.Live)
}

// wake returns when the session has to be drained; zero: not by itself.
func (c *conn) wake() time.Time { return earliest(c.s.Wake(), c.doubt) }

// answer calls the functions that wait for the result of the probe.
func (c *conn) answer(now time.Time, alive bool) {
	waiting := c.alive
	c.alive = nil
	for _, f := range waiting {
		f(now, alive)
	}
}
