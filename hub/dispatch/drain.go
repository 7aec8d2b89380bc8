package dispatch

import (
	"time"

	"petrel.dev/petrel/internal/wire"
)

// drain does what a session wants done. If there may be more, the session is queued again.
func (d *Dispatch) drain(now time.Time, n *node, c *conn) {
	// A pending pod is part of what should run, and may run already: without it the set is not complete.
	if n.current == c && !d.set.Pending(n.name) {
		c.s.Settle()
	}
	out := c.s.Drain(now)
	for _, f := range out.Frames {
		d.publish(n.id, f)
	}
	if out.Hello != nil {
		c.hello = out.Hello
		d.admit(now, n, c)
	}
	if out.Have != nil {
		d.compare(now, n, out.Have)
		c.s.Have(out.Have)
	}
	for _, b := range out.Batches {
		d.takeReports(now, n, c, b)
	}
	if out.Alive != nil {
		c.answer(now, *out.Alive)
	}
	switch {
	case out.Ended:
		d.ended(now, n, c, out.Err)
	case out.Hello != nil, out.Have != nil, out.Alive != nil, d.silent(now, n, c):
		d.enqueue(n, c)
	default:
		d.wakeNode(n, c.wake())
	}
}

// takeReports passes a batch of reports on. The session answers it once it is durable. Reports of images are not stored.
func (d *Dispatch) takeReports(now time.Time, n *node, c *conn, b *wire.Batch) {
	d.wakeAt(d.images.Report(now, n.name, b))
	d.in.add(job{device: n.id, node: n.name, batch: b, done: func() {
		d.callOn(n, func(time.Time) {
			if n.conns[c.tag] == c {
				c.s.Committed(b.Seq)
				d.enqueue(n, c)
			}
		})
	}})
}
