package dispatch

import (
	"context"
	"errors"
	"fmt"
	"time"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/contain"
	"petrel.dev/petrel/internal/wire"
)

// loop is the one goroutine that owns sessions and sets.
func (d *Dispatch) loop(ctx context.Context, errs <-chan error) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		// Rounded up a little, so that the timers of many nodes fire together.
		if wake := earliest(d.wake, d.wakes.Next()); wake.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(max(time.Until(wake), 0) + 5*time.Millisecond)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-errs:
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("dispatch: %w", err)
		case <-timer.C:
			d.timedRound(d.tick)
		case <-d.inbox.ready:
			d.timedRound(d.work)
		}
	}
}

// timedRound does one round of the loop, which Stuck sees.
func (d *Dispatch) timedRound(f func(now time.Time)) {
	d.round.Begin()
	defer d.round.End()
	f(time.Now())
}

// Stuck returns an error when one round of the loop has gone on for longer than limit: no node is served meanwhile.
func (d *Dispatch) Stuck(limit time.Duration) error { return d.round.Stuck(limit) }

// work processes everything in the inbox. Changes go first, so that a hello gets the newest sets.
func (d *Dispatch) work(now time.Time) {
	changes, frames, calls, bus := d.inbox.take()
	d.changeAll(now, changes)
	if bus != nil {
		d.busChanged(now, *bus)
	}
	d.drainAll(now)
	for _, c := range calls {
		d.run(now, c)
		d.drainAll(now)
	}
	for _, f := range frames {
		d.frame(now, f)
		d.drainAll(now)
	}
	d.drainTouched(now)
}

// run makes a call. A panic over one that works on a device ends its sessions, see guard: otherwise they would go on with
// half of the work done, waiting for an answer that does not come.
func (d *Dispatch) run(now time.Time, c call) {
	if c.node != nil {
		d.guard(now, c.node, func() { c.f(now) })
		return
	}
	contain.Go(d.cfg.Log, "dispatch/call", "a call", func() { c.f(now) })
}

// frame takes a frame from the bus. A panic over it ends its device's sessions.
func (d *Dispatch) frame(now time.Time, f inFrame) {
	cluster, id, _, kind, ok := wire.ParseTopic(f.topic)
	if !ok || cluster != d.cfg.Keys.ClusterID {
		return
	}
	err := contain.Do(d.cfg.Log, "dispatch/frame", id, func() error { d.take(now, id, kind, f); return nil })
	if err != nil && d.nodes[id] != nil {
		d.abandon(now, d.nodes[id], err)
	}
}

// drainAll drains the queued sessions until none has anything more to do.
func (d *Dispatch) drainAll(now time.Time) {
	for i := 0; i < len(d.queue); i++ { // grows meanwhile
		next := d.queue[i]
		next.conn.queued = false
		if next.node.conns[next.conn.tag] == next.conn { // it has not ended meanwhile
			d.guard(now, next.node, func() { d.drain(now, next.node, next.conn) })
		}
	}
	clear(d.queue)
	d.queue = d.queue[:0]
}

// drainTouched drains those whose sets have changed. It is the end of a round, so that a node gets what has changed in it as
// one batch.
func (d *Dispatch) drainTouched(now time.Time) {
	d.share(now)
	for n := range d.touched {
		delete(d.touched, n)
		if n.current != nil {
			d.enqueue(n, n.current)
		}
	}
	d.drainAll(now)
}

// guard runs f, which works on one device. When it panics, the device loses its sessions and connects again, and its set is composed
// again. Other devices are not affected.
func (d *Dispatch) guard(now time.Time, n *node, f func()) {
	if err := contain.Do(d.cfg.Log, "dispatch/node", n.id, func() error { f(); return nil }); err != nil {
		d.abandon(now, n, err)
	}
}

func (d *Dispatch) drainChanges(now time.Time) {
	changes, _, _, _ := d.inbox.take()
	d.changeAll(now, changes)
}

// changeAll processes changes of the feed. A panic over one skips only that one.
func (d *Dispatch) changeAll(now time.Time, changes []control.Change) {
	for _, c := range changes {
		o := c.Object()
		contain.Go(d.cfg.Log, "dispatch/change", o.GetNamespace()+"/"+o.GetName(), func() { d.change(now, c) })
	}
	d.share(now)
}

// tick drains every session whose time has come, and does what else is due.
func (d *Dispatch) tick(now time.Time) {
	d.wake = time.Time{}
	d.nudge(now)
	d.share(now)
	d.wakeAt(d.images.Expire(now))
	for _, n := range d.wakes.Take(now) {
		d.guard(now, n, func() { d.tickNode(now, n) })
		d.drainAll(now)
	}
	d.drainTouched(now)
}

func (d *Dispatch) tickNode(now time.Time, n *node) {
	for _, c := range n.conns {
		if w := c.wake(); !w.IsZero() && !now.Before(w) {
			d.enqueue(n, c)
		} else {
			d.wakeNode(n, w)
		}
	}
	if n.current == nil {
		return
	}
	if !n.renew.IsZero() && !now.Before(n.renew) {
		d.renewTokens(now, n)
	} else {
		d.wakeNode(n, n.renew)
	}
	d.set.Expire(now, n.name)
	d.spread()
}

// busChanged records whether the bus works. Without it no session can be kept; with it again, nodes are nudged.
func (d *Dispatch) busChanged(now time.Time, up bool) {
	d.nudges = nil
	if up {
		d.nudgeFrom(now)
		return
	}
	for _, n := range d.nodes {
		for _, c := range n.conns {
			c.s.Fail(errors.New("the hub lost its broker"))
			d.enqueue(n, c)
		}
	}
}

// shutdown ends all sessions, so that nodes do not have to wait for timeouts.
func (d *Dispatch) shutdown(now time.Time) {
	for _, n := range d.nodes {
		if n.current != nil {
			n.current.s.Bye(now, wire.CodeShutdown, "the hub stops")
			d.enqueue(n, n.current)
		}
		for _, e := range n.streams {
			e.Fail(fmt.Errorf("%w: the hub stops", wire.ErrStreamCut))
		}
	}
	d.drainAll(now)
}
