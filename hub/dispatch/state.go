package dispatch

import (
	"time"

	"petrel.dev/petrel/hub/dispatch/desired"
	"petrel.dev/petrel/hub/dispatch/images"
	"petrel.dev/petrel/hub/dispatch/tokens"
	"petrel.dev/petrel/internal/wire"
)

// Dispatch is the hub's end of all links.
type Dispatch struct {
	cfg    Config        // not changed after New
	inbox  *inbox        // what comes to the loop
	known  roster        // which devices have a Node
	pres   presence      // who is connected, for others to ask
	in     *intake       // takes in reports, beside the loop
	joins  *joins        // join tokens and new Nodes, beside the loop
	tokens *tokens.Maker // beside the loop; nil: pods get no tokens
	images *images.Images

	// What follows belongs to the loop's goroutine.
	nodes    map[string]*node // by device id
	byName   map[string]*node // the device that speaks for a Node, once it has been welcomed
	set      *desired.Sets
	common   *wire.Shared       // what all nodes get
	touched  map[*node]struct{} // connected nodes whose set has changed in this round
	queue    []queued           // sessions that may have something to do, see drainAll
	revision uint64             // largest seen in the feed
	refusals refusals
	pending  map[string]*node // devices that are not known and have begun a handshake; at most maxStrangers
	knocks   bucket           // of such devices
	wake     time.Time        // when tick has to run; zero: not at all
	nudges   []time.Time      // when to nudge nodes without a session again, next first
}

// session returns the node that has a session under a Node's name, or nil.
func (d *Dispatch) session(name string) *node {
	if n := d.byName[name]; n != nil && n.current != nil {
		return n
	}
	return nil
}

// enqueue has the loop drain a session, after those that stand in the queue already.
func (d *Dispatch) enqueue(n *node, c *conn) {
	if !c.queued {
		c.queued = true
		d.queue = append(d.queue, queued{n, c})
	}
}

// wakeAt has tick run at t or before; zero: no matter when.
func (d *Dispatch) wakeAt(t time.Time) { d.wake = earliest(d.wake, t) }

// history is the store's, and the largest revision known of it.
func (d *Dispatch) history() (id string, revision uint64) {
	if d.cfg.History != nil {
		id, revision = d.cfg.History()
	}
	return id, max(revision, d.revision)
}

// publish sends a frame to a device.
func (d *Dispatch) publish(device string, frame []byte) {
	d.cfg.Bus.Publish(wire.DownTopic(d.cfg.Keys.ClusterID, device), frame)
}

// call runs f on the loop.
func (d *Dispatch) call(f func(now time.Time)) { d.inbox.call(call{f: f}) }

// callOn runs f, which works on one device, on the loop.
func (d *Dispatch) callOn(n *node, f func(now time.Time)) { d.inbox.call(call{node: n, f: f}) }
