package dispatch

import (
	"context"
	"errors"
	"sync"
	"time"

	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/wire"
)

// presence is who is connected, for others to ask.
type presence struct {
	heard func(device string) time.Time // of the bus

	mu       sync.Mutex
	nodes    map[string]seen
	watchers map[int]func(node string)
	next     int
}

type seen struct {
	connected bool
	last      time.Time // heard of: when the session ended or, while it lasts, began
	device    string    // while connected
	keepalive time.Duration
}

func (p *presence) init(heard func(device string) time.Time) {
	p.heard, p.nodes, p.watchers = heard, map[string]seen{}, map[int]func(string){}
}

func (p *presence) set(node string, s seen) {
	p.mu.Lock()
	p.nodes[node] = s
	fs := make([]func(string), 0, len(p.watchers))
	for _, f := range p.watchers {
		fs = append(fs, f)
	}
	p.mu.Unlock()
	for _, f := range fs {
		f(node)
	}
}

func (p *presence) forget(node string) {
	p.mu.Lock()
	delete(p.nodes, node)
	p.mu.Unlock()
}

// Presence tells whether a node has an open session, and when it was last heard of: the zero time for one not heard of
// since this hub started, and now for a connected one whose packets the bus does not see.
func (d *Dispatch) Presence(node string) (connected bool, lastHeard time.Time) {
	d.pres.mu.Lock()
	s := d.pres.nodes[node]
	d.pres.mu.Unlock()
	if !s.connected {
		return false, s.last
	}
	if t := d.pres.heard(s.device); !t.IsZero() {
		return true, latest(t, s.last)
	}
	return true, time.Now()
}

// Watch calls f whenever a node's presence changes, until ctx ends. It returns at once. f must not block.
func (d *Dispatch) Watch(ctx context.Context, f func(node string)) {
	p := &d.pres
	p.mu.Lock()
	defer p.mu.Unlock()
	id := p.next
	p.next++
	p.watchers[id] = f
	context.AfterFunc(ctx, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.watchers, id)
	})
}

// errSilent is a node that was asked something and has not said a word since.
var errSilent = errors.New("no answer, and no sign of life")

// silent ends an open session whose node owes an answer and has said nothing at all, not even a ping of its connection,
// for DarkGrace. A connection that leads nowhere is so found out as soon as somebody wants something of the node; one that
// nobody uses ends when the broker misses its keepalives, so that an idle link carries nothing but those.
func (d *Dispatch) silent(now time.Time, n *node, c *conn) bool {
	c.doubt = time.Time{}
	since := c.s.Unanswered()
	if since.IsZero() || !c.s.Open() {
		return false
	}
	if end := latest(since, d.lastHeard(n, c)).Add(kube.DarkGrace); now.Before(end) {
		c.doubt = end
		return false
	}
	c.s.Fail(errSilent)
	return true
}

// lastHeard is when the node of a session last said anything, as far as is known.
func (d *Dispatch) lastHeard(n *node, c *conn) time.Time {
	return latest(c.s.Heard(), c.last, d.cfg.Bus.Heard(n.id))
}

// heardAtEnd is lastHeard for a session that has ended by err. A bus that does not see every packet answers for its nodes
// until it says that one is gone, so that moment counts; but not for a node that did not answer.
func (d *Dispatch) heardAtEnd(now time.Time, n *node, c *conn, err error) time.Time {
	sees := !c.last.IsZero() || !d.cfg.Bus.Heard(n.id).IsZero()
	if sees || unanswered(err) {
		return d.lastHeard(n, c)
	}
	return now
}

// unanswered tells the ends of a session that the node does not know of: its connection may still stand.
func unanswered(err error) bool { return errors.Is(err, errSilent) || errors.Is(err, wire.ErrDead) }

// callBack tells a node whose session was given up to make a new one, should it hear again. It would not find out by
// itself: to the broker, all is well with a connection on which pings get through.
func (d *Dispatch) callBack(now time.Time, n *node, tag wire.Tag) {
	d.cfg.Bus.Publish(topicDown(d, n.id), wire.NudgeFrame(tag))
	d.nudgeFrom(now)
}

func latest(ts ...time.Time) time.Time {
	var l time.Time
	for _, t := range ts {
		if t.After(l) {
			l = t
		}
	}
	return l
}

// earliest is the earlier of two times of which zero means never.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
