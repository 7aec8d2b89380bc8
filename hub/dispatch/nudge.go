package dispatch

import (
	"time"

	"petrel.dev/petrel/internal/wire"
)

// nudgeAfter is when nodes that have not connected are nudged, counted from when the bus began to work. Over an external broker they
// do not notice by themselves that the hub has started again, and a nudge may get lost.
var nudgeAfter = []time.Duration{0, 15 * time.Second, time.Minute, 5 * time.Minute}

// callBack nudges a node whose session was ended for silence to make a new one, if it is reachable again. It would not notice by
// itself: its connection to the broker is in order as long as pings get through.
func (d *Dispatch) callBack(now time.Time, n *node, tag wire.Tag) {
	d.publish(n.id, wire.NudgeFrame(tag))
	d.nudgeFrom(now)
}

// nudgeFrom nudges nodes without a session at the times of nudgeAfter from now on.
func (d *Dispatch) nudgeFrom(now time.Time) {
	d.nudges = d.nudges[:0]
	for _, t := range nudgeAfter {
		d.nudges = append(d.nudges, now.Add(t))
	}
	d.nudge(now)
}

// nudge sends nodes without a session a nudge to connect, when one is due.
func (d *Dispatch) nudge(now time.Time) {
	if len(d.nudges) == 0 {
		return
	}
	if now.Before(d.nudges[0]) {
		d.wakeAt(d.nudges[0])
		return
	}
	for key, name := range d.known.All() {
		if d.session(name) == nil {
			d.publish(wire.NodeID(key), wire.NudgeFrame(wire.Tag{}))
		}
	}
	if d.nudges = d.nudges[1:]; len(d.nudges) > 0 {
		d.wakeAt(d.nudges[0])
	}
}
