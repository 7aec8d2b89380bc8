package dispatch

import (
	"errors"
	"time"

	"petrel.dev/petrel/hub/dispatch/session"
	"petrel.dev/petrel/hub/dispatch/tokens"
	"petrel.dev/petrel/internal/wire"
)

const (
	maxConns = 4 // sessions and handshakes of one device at a time
	// Devices that are not known share what follows, because any client can make as many keys as it likes. Known ones have room of
	// their own, and are not counted here.
	maxStrangers = 64 // that have begun a handshake
	nudgeEvery   = time.Second
)

// strangerKnocks is how many handshakes of devices that are not known are begun: each costs the hub some arithmetic.
var strangerKnocks = limit{rate: 50, burst: 128}

// take takes a frame of a device, which has no node yet when it is new.
func (d *Dispatch) take(now time.Time, id string, kind wire.TopicKind, f inFrame) {
	typ, tag, err := wire.Peek(f.b)
	if err != nil {
		return
	}
	n := d.nodes[id]
	var c *conn
	if n != nil {
		c = n.conns[tag]
	}
	switch {
	case kind == wire.TopicLive:
		if c != nil && typ == wire.FrameLive && c.lastWords(f) {
			c.seen = f.seen
			c.s.Fail(errors.New("connection lost"))
			d.enqueue(n, c)
		}
	case c != nil:
		c.s.Frame(now, f.b)
		d.enqueue(n, c)
	case typ == wire.FrameKnock:
		d.knock(now, id, tag, f.b)
	case n == nil || now.Sub(n.nudged) > nudgeEvery:
		if n != nil {
			n.nudged = now
		}
		d.publish(id, wire.NudgeFrame(tag))
	}
}

// knock starts a handshake.
func (d *Dispatch) knock(now time.Time, id string, tag wire.Tag, b []byte) {
	n := d.nodes[id]
	if n == nil {
		if len(id) != wire.NodeIDLen {
			return
		}
		n = &node{id: id, conns: map[wire.Tag]*conn{}, up: wire.NewCopy(), tokens: tokens.NewBook(), streams: map[string]*wire.Endpoint{}}
	}
	stranger := !d.known.Has(id)
	if stranger && !d.knocks.take(now, strangerKnocks, 1) {
		return // the device sends it again
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
	d.enqueue(n, c)
}

// makeRoom ends the oldest handshake of a device that has had no hello yet, if there is one. Over a broker that lets others publish
// on the device's topics, they would otherwise fill its room.
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
	err := errors.New("a newer handshake of this device took its room")
	oldest.s.Fail(err)
	d.ended(now, n, oldest, err)
	return len(n.conns) < maxConns
}

// evictStranger ends the oldest handshake of an unknown device when there are too many. A join takes well under a
// second; at the rate at which handshakes begin, a device has more time than that.
func (d *Dispatch) evictStranger(now time.Time) {
	if len(d.pending) < maxStrangers {
		return
	}
	var oldest *node
	var began time.Time
	for id, n := range d.pending {
		if d.known.Has(id) {
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
		d.enqueue(oldest, c)
	}
	delete(d.pending, oldest.id)
}
