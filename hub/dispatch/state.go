package dispatch

import (
	"time"

	"petrel.dev/petrel/hub/dispatch/desired"
	"petrel.dev/petrel/hub/dispatch/due"
	"petrel.dev/petrel/hub/dispatch/images"
	"petrel.dev/petrel/hub/dispatch/roster"
	"petrel.dev/petrel/hub/dispatch/tokens"
	"petrel.dev/petrel/internal/stall"
	"petrel.dev/petrel/internal/wire"
)

// Dispatch is the hub's end of all links.
type Dispatch struct {
	// These are set by New, never nil where not said otherwise, and have locks of their own.
	cfg    Config        // does not change after New
	inbox  *inbox        // what other goroutines have for the loop
	known  roster.Roster // which devices have a Node
	pres   presence      // which nodes are connected, for other goroutines
	in     *intake       // writes reports, beside the loop
	joins  *joins        // join tokens and new Nodes, beside the loop
	tokens *tokens.Maker // beside the loop; nil: pods get no tokens
	images *images.Images
	round  stall.Work // of the loop

	// The rest is owned by the loop's goroutine.
	nodes    map[string]*node // by device id
	byName   map[string]*node // the device of a Node, once it has been welcomed
	set      *desired.Sets
	common   *wire.Shared       // what all nodes get
	shareAt  time.Time          // before which changes of it are gathered, see share
	podPut   bool               // a pod has been put into a set since share was called
	touched  map[*node]struct{} // connected nodes whose set has changed in this round
	queue    []queued           // sessions that may have something to do, see drainAll
	revision uint64             // largest seen in the feed; grows only
	refusals refusals
	pending  map[string]*node  // devices that are not known and have begun a handshake; at most maxStrangers
	knocks   bucket            // of such devices
	wake     time.Time         // when tick has to run for what is no single node's; zero: not at all
	wakes    *due.Times[*node] // when tick has to work on single nodes, see wakeNode; never nil
	nudges   []time.Time       // when to nudge nodes without a session again, next first
}

// session returns the node that has a session under a Node's name, or nil.
func (d *Dispatch) session(name string) *node {
	if n := d.byName[name]; n != nil && n.current != nil {
		return n
	}
	return nil
}

// enqueue makes the loop drain a session, after those in the queue.
func (d *Dispatch) enqueue(n *node, c *conn) {
	if !c.queued {
		c.queued = true
		d.queue = append(d.queue, queued{n, c})
	}
}

// history returns the store's history, and the largest revision known of it.
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

// wakeAt makes tick run at t or before; zero changes nothing.
func (d *Dispatch) wakeAt(t time.Time) { d.wake = earliest(d.wake, t) }

// wakeNode makes tick work on a node at t or before; zero changes nothing.
func (d *Dispatch) wakeNode(n *node, t time.Time) { d.wakes.Add(n, t) }

// call runs f on the loop.
func (d *Dispatch) call(f func(now time.Time)) { d.inbox.call(call{f: f}) }

// callOn runs f, which works on one device, on the loop.
func (d *Dispatch) callOn(n *node, f func(now time.Time)) { d.inbox.call(call{node: n, f: f}) }
