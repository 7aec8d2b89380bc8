package dispatch

import (
	"fmt"
	"time"

	"petrel.dev/petrel/hub/dispatch/tokens"
	"petrel.dev/petrel/internal/contain"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/wire"
)

// forgetAfter is when what a dark node has reported is forgotten, so that it reports everything again: others may have changed
// what it reported of its pods (not ready, unknown).
const forgetAfter = kube.DarkGrace / 2

// open makes c the node's open session.
func (d *Dispatch) open(now time.Time, n *node, c *conn, name string) {
	if old := n.current; old != nil {
		n.current = nil
		old.s.Bye(now, wire.CodeReplaced, "a newer connection of this device took over")
		d.closeSession(n, old, now)
		d.enqueue(n, old)
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
	if now.Sub(n.seen) > forgetAfter {
		n.up = wire.NewCopy()
	}
	delete(d.pending, n.id)
	n.current, n.epoch = c, c.hello.Epoch
	d.compose(now, n, c.hello.Down)
	history, _ := d.history()
	c.s.Accept(wire.Welcome{Node: name, Addresses: d.cfg.Addresses, Settings: d.cfg.Settings, History: history},
		n.down, c.hello.Down, n.up, func() uint64 { return d.revision })
	d.accepted(now, n, c.hello.Down)
	d.cfg.Log.Info("node connected", "node", name, "device", n.id, "epoch", c.hello.Epoch, "agent", c.hello.Build)
	d.pres.set(name, seen{connected: true, last: now, device: n.id, keepalive: keepaliveOf(c)})
	d.enqueue(n, c)
}

// ended removes a session.
func (d *Dispatch) ended(now time.Time, n *node, c *conn, err error) {
	if n.conns[c.tag] != c {
		return
	}
	delete(n.conns, c.tag)
	if n.current == c {
		n.current = nil
		d.cfg.Log.Info("node disconnected", "node", n.name, "device", n.id, "reason", reason(err))
		d.closeSession(n, c, d.seenAtEnd(now, n, c, err))
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

// removed ends the session of a device whose Node is gone, or is another device's now.
func (d *Dispatch) removed(now time.Time, n *node, message string) {
	name := n.name
	if c := n.current; c != nil {
		n.current = nil
		c.s.Bye(now, wire.CodeRemoved, message)
		d.closeSession(n, c, now)
		d.enqueue(n, c)
	}
	if d.byName[name] == n {
		delete(d.byName, name)
		d.pres.forget(name)
	}
	d.images.Forget(now, name)
	n.name, n.up, n.tokens, n.epoch = "", wire.NewCopy(), tokens.NewBook(), 0
	if len(n.conns) == 0 {
		delete(d.nodes, n.id)
	}
}

// abandon removes all sessions of a device after a panic over one of them: their state is undefined.
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
			d.publish(n.id, wire.NudgeFrame(cur.tag))
			d.cfg.Log.Info("node disconnected", "node", n.name, "device", n.id, "reason", err)
		}
	})
	delete(d.touched, n)
}

// closeSession ends what belongs to the open session. last is when its node was last seen.
func (d *Dispatch) closeSession(n *node, c *conn, last time.Time) {
	n.seen = last
	d.set.Close(n.name)
	n.down = nil
	delete(d.touched, n)
	d.in.drop(n.id)
	for id, e := range n.streams {
		e.Fail(fmt.Errorf("%w: node %s is not connected", wire.ErrStreamCut, n.name))
		delete(n.streams, id)
		d.inbox.streams.remove(n.id, id)
	}
	if d.byName[n.name] == n {
		d.pres.set(n.name, seen{last: last, keepalive: keepaliveOf(c)})
	}
}
