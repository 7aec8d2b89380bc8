package dispatch

import (
	"errors"
	"fmt"
	"time"

	"petrel.dev/petrel/hub/dispatch/session"
	"petrel.dev/petrel/internal/contain"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/wire"
)

const (
	maxConns = 4 // sessions and handshakes of one device at a time
	// Devices that are not known share what follows: anybody can make as many keys as they like. Known ones have room of
	// their own, and are not counted here.
	maxStrangers = 64 // that have begun a handshake
	nudgeEvery   = time.Second
	// After so long in the dark, others may have changed what a node has said of its pods (not ready, unknown): then it
	// says everything again.
	forgetAfter = kube.DarkGrace / 2
)

// node is one device. Fields below "session" are valid while current is set.
type node struct {
	id    string // in topics
	name  string // of its Node; empty before its first welcome
	conns map[wire.Tag]*conn
	// current is the one open session. All others are handshakes, or sessions that are being ended.
	current *conn

	epoch  uint64     // of the latest accepted session
	up     *wire.Copy // reports; outlives sessions
	heard  time.Time  // the last of it when its last session ended
	nudged time.Time  // last nudge
	tokens map[string]*saToken

	// session
	down    *wire.Sender
	desired nodeSet
	streams map[string]*wire.Endpoint
}

// conn is one session with what the loop has to know of it.
type conn struct {
	s     *session.Session
	tag   wire.Tag
	began time.Time
	hello *wire.Hello
	alive []func(now time.Time, alive bool) // who waits for the probe
	// last is when the bus had heard of the node when it said that the connection is gone; zero before, or unknown.
	last time.Time
	// doubt is when to look whether a node that owes an answer has said anything; zero: it owes none.
	doubt time.Time
}

// keepaliveOf is how often a session's node says something at least.
func keepaliveOf(c *conn) time.Duration { return time.Duration(c.hello.Keepalive) * time.Second }

// lastWords reports whether a live frame is the device's own. Before the hello only a bus that knows who speaks can tell.
func (c *conn) lastWords(f inFrame) bool {
	if c.hello == nil {
		return !f.heard.IsZero()
	}
	return wire.LastWordsMatch(f.b, c.hello.Live)
}

// wake is when the session wants a turn.
func (c *conn) wake() time.Time { return earliest(c.s.Wake(), c.doubt) }

func (d *Dispatch) frame(now time.Time, f inFrame) {
	cluster, id, _, kind, ok := wire.ParseTopic(f.topic)
	if !ok || cluster != d.cfg.Keys.ClusterID {
		return
	}
	n := d.nodes[id]
	err := contain.Do(d.cfg.Log, "dispatch/frame", id, func() error { d.frameOf(now, id, n, kind, f); return nil })
	if err != nil && d.nodes[id] != nil {
		d.abandon(now, d.nodes[id], err)
	}
}

// frameOf takes a frame of a device, which has no node yet when it is new.
func (d *Dispatch) frameOf(now time.Time, id string, n *node, kind wire.TopicKind, f inFrame) {
	b := f.b
	typ, tag, err := wire.Peek(b)
	if err != nil {
		return
	}
	if kind == wire.TopicLive {
		if n != nil && n.conns[tag] != nil && typ == wire.FrameLive && n.conns[tag].lastWords(f) {
			c := n.conns[tag]
			c.last = f.heard
			c.s.Fail(errors.New("connection lost"))
			d.drainConn(now, n, c)
		}
		return
	}
	if n == nil || n.conns[tag] == nil {
		if typ == wire.FrameKnock {
			d.knock(now, id, tag, b)
		} else if n == nil || now.Sub(n.nudged) > nudgeEvery {
			if n != nil {
				n.nudged = now
			}
			d.cfg.Bus.Publish(topicDown(d, id), wire.NudgeFrame(tag))
		}
		return
	}
	c := n.conns[tag]
	c.s.Frame(now, b)
	d.drainConn(now, n, c)
}

func topicDown(d *Dispatch, id string) string { return wire.DownTopic(d.cfg.Keys.ClusterID, id) }

// knock starts a handshake.
func (d *Dispatch) knock(now time.Time, id string, tag wire.Tag, b []byte) {
	n := d.nodes[id]
	if n == nil {
		if len(id) != wire.NodeIDLen {
			return
		}
		n = &node{id: id, conns: map[wire.Tag]*conn{}, up: wire.NewCopy(), tokens: map[string]*saToken{}, streams: map[string]*wire.Endpoint{}}
	}
	stranger := !d.known.has(id)
	if stranger && !d.knocks.take(now, strangerKnocks, 1) {
		return // it knocks again
	}
	if len(n.conns) >= maxConns && !d.makeRoom(now, n) {
		return // they end by themselves, within a minute
	}
	s, err := session.New(now, wire.Place{Cluster: d.cfg.Keys.ClusterID, Node: id, Tag: tag}, d.cfg.Keys.Static, b)
	if err != nil {
		d.cfg.Log.Debug("knock not understood", "device", id, "error", err)
		return
	}
	if stranger && d.pending[id] == nil {
		d.evictStranger(now)
		d.pending[id] = n
	}
	d.nodes[id] = n
	c := &conn{s: s, tag: tag, began: now}
	n.conns[tag] = c
	d.drainConn(now, n, c)
}

// strangerKnocks is how many handshakes of devices that are not known are begun: each costs the hub some arithmetic.
var strangerKnocks = limit{rate: 50, burst: 128}

// makeRoom ends the oldest handshake of a device that has not come to its hello, if there is one. Over a broker that lets
// others publish on the device's topics, they would otherwise fill its room.
func (d *Dispatch) makeRoom(now time.Time, n *node) bool {
	var oldest *conn
	for _, c := range n.conns {
		if c.hello == nil && (oldest == nil || c.began.Before(oldest.began)) {
			oldest = c
		}
	}
	if oldest == nil {
		return false
	}
	oldest.s.Fail(errors.New("a newer handshake of this device took its room"))
	d.drainConn(now, n, oldest)
	return len(n.conns) < maxConns
}

// evictStranger forgets the stranger that has been at it for longest when there are too many. A join takes well under a
// second; at the rate that knocks are taken, a device has more than one.
func (d *Dispatch) evictStranger(now time.Time) {
	if len(d.pending) < maxStrangers {
		return
	}
	var oldest *node
	var began time.Time
	for id, n := range d.pending {
		if d.known.has(id) {
			delete(d.pending, id)
			continue
		}
		first := now
		for _, c := range n.conns {
			if c.began.Before(first) {
				first = c.began
			}
		}
		if oldest == nil || first.Before(began) {
			oldest, began = n, first
		}
	}
	if oldest == nil || len(d.pending) < maxStrangers {
		return
	}
	for _, c := range oldest.conns {
		c.s.Fail(errors.New("another device took its room"))
		d.drainConn(now, oldest, c)
	}
	delete(d.pending, oldest.id)
}

// abandon forgets all sessions of a device after a panic while one was worked on: their state may be anything.
func (d *Dispatch) abandon(now time.Time, n *node, err error) {
	cur := n.current
	n.current = nil
	clear(n.conns)
	delete(d.nodes, n.id)
	delete(d.pending, n.id)
	if d.byName[n.name] == n {
		delete(d.byName, n.name)
	}
	contain.Go(d.cfg.Log, "dispatch/abandon", n.id, func() {
		if cur != nil {
			d.closeSession(n, cur, now)
			d.pres.set(n.name, seen{last: now, keepalive: keepaliveOf(cur)})
			d.cfg.Bus.Publish(topicDown(d, n.id), wire.NudgeFrame(cur.tag))
			d.cfg.Log.Info("node disconnected", "node", n.name, "device", n.id, "reason", err)
		}
	})
	delete(d.set.touched, n)
}

// drain gives the node's open session a turn.
func (d *Dispatch) drain(now time.Time, n *node) {
	if n.current != nil {
		d.drainConn(now, n, n.current)
	}
}

// drainConn does what a session wants done.
func (d *Dispatch) drainConn(now time.Time, n *node, c *conn) {
	for again := true; again; {
		// A pod that waits for its token is to run, and may run already: without it the set is not complete.
		if n.current == c && len(n.desired.held) == 0 {
			c.s.Settle()
		}
		out := c.s.Drain(now)
		again = false
		for _, f := range out.Frames {
			d.cfg.Bus.Publish(topicDown(d, n.id), f)
		}
		if out.Hello != nil {
			c.hello = out.Hello
			d.admit(now, n, c)
			again = true
		}
		if out.Have != nil {
			d.set.have(now, n, out.Have)
			c.s.Have(out.Have)
			again = true
		}
		for _, b := range out.Batches {
			d.imageReports(now, n, b)
			d.in.add(job{device: n.id, node: n.name, batch: b, done: func() {
				d.callOn(n, func(now time.Time) {
					if n.conns[c.tag] == c {
						c.s.Committed(b.Seq)
						d.drainConn(now, n, c)
					}
				})
			}})
		}
		if out.Alive != nil {
			c.answer(now, *out.Alive)
			again = true
		}
		if out.Ended {
			d.ended(now, n, c, out.Err)
			return
		}
		again = again || d.silent(now, n, c)
	}
	d.wakeAt(c.wake())
}

func (c *conn) answer(now time.Time, alive bool) {
	waiting := c.alive
	c.alive = nil
	for _, f := range waiting {
		f(now, alive)
	}
}

// ended forgets a session.
func (d *Dispatch) ended(now time.Time, n *node, c *conn, err error) {
	if n.conns[c.tag] != c {
		return
	}
	delete(n.conns, c.tag)
	if n.current == c {
		n.current = nil
		d.cfg.Log.Info("node disconnected", "node", n.name, "device", n.id, "reason", reason(err))
		d.closeSession(n, c, d.heardAtEnd(now, n, c, err))
		if unanswered(err) {
			d.callBack(now, n, c.tag)
		}
	}
	c.answer(now, false)
	if len(n.conns) == 0 {
		delete(d.pending, n.id)
		if n.name == "" {
			delete(d.nodes, n.id)
		}
	}
}

func reason(err error) string {
	if err == nil {
		return "good-bye"
	}
	return err.Error()
}

// closeSession ends what hangs on the open session. heard is when its node was last heard of.
func (d *Dispatch) closeSession(n *node, c *conn, heard time.Time) {
	n.heard = heard
	d.set.drop(n)
	d.in.drop(n.id)
	for id, e := range n.streams {
		e.Fail(fmt.Errorf("%w: node %s is not connected", wire.ErrStreamCut, n.name))
		delete(n.streams, id)
		d.inbox.streams.remove(n.id, id)
	}
	if d.byName[n.name] == n {
		d.pres.set(n.name, seen{last: heard, keepalive: keepaliveOf(c)})
	}
}

// open makes c the node's open session.
func (d *Dispatch) open(now time.Time, n *node, c *conn, name string) {
	if old := n.current; old != nil {
		n.current = nil
		old.s.Bye(now, wire.CodeReplaced, "a newer connection of this device took over")
		d.closeSession(n, old, now)
		d.drainConn(now, n, old)
	}
	if other := d.byName[name]; other != nil && other != n {
		d.removed(now, other, "another device has joined as "+name+" and taken its place")
	}
	if n.name != name {
		if d.byName[n.name] == n {
			delete(d.byName, n.name)
		}
		n.name, n.up = name, wire.NewCopy()
	}
	d.byName[name] = n
	if now.Sub(n.heard) > forgetAfter {
		n.up = wire.NewCopy()
	}
	delete(d.pending, n.id)
	n.current, n.epoch = c, c.hello.Epoch
	d.set.compose(now, n, c.hello.Down)
	history, _ := d.history()
	c.s.Accept(wire.Welcome{Node: name, Addresses: d.cfg.Addresses, Settings: d.cfg.Settings, History: history},
		n.down, c.hello.Down, n.up, func() uint64 { return d.revision })
	d.set.accepted(now, n, c.hello.Down)
	d.cfg.Log.Info("node connected", "node", name, "device", n.id, "epoch", c.hello.Epoch, "agent", c.hello.Build)
	d.pres.set(name, seen{connected: true, last: now, device: n.id, keepalive: keepaliveOf(c)})
	d.drainConn(now, n, c)
}

// removed ends the session of a device whose Node is gone, or is another device's now.
func (d *Dispatch) removed(now time.Time, n *node, message string) {
	name := n.name
	if c := n.current; c != nil {
		n.current = nil
		c.s.Bye(now, wire.CodeRemoved, message)
		d.closeSession(n, c, now)
		d.drainConn(now, n, c)
	}
	if d.byName[name] == n {
		delete(d.byName, name)
		d.pres.forget(name)
	}
	d.images.forget(now, name)
	n.name, n.up, n.tokens, n.epoch = "", wire.NewCopy(), map[string]*saToken{}, 0
	if len(n.conns) == 0 {
		delete(d.nodes, n.id)
	}
}
