package dispatch

import (
	"time"

	"petrel.dev/petrel/internal/wire"
)

// nudgeAfter is when nodes that have not come are nudged, after the bus began to work. Over an external broker they do
// not notice by themselves that the hub has started anew, and a nudge may get lost.
var nudgeAfter = []time.Duration{0, 15 * time.Second, time.Minute, 5 * time.Minute}

// callBack has a node whose session was given up make a new one, should it be reachable again. It would not find out by
// itself: to the broker, all is well with a connection on which pings get through.
func (d *Dispatch) callBack(now time.Time, n *node, tag wire.Tag) {
	d.publish(n.id, wire.NudgeFrame(tag))
	d.nudgeFrom(now)
}

// nudgeFrom nudges nodes without a session from now on, as nudgeAfter says.
func (d *Dispatch) nudgeFrom(now time.Time) {
	d.nudges = d.nudges[:0]
	for _, t := range nudgeAfter {
		d.nudges = append(d.nudges, now.Add(t))
	}
	d.nudge(now)
}

// nudge lets nodes without a session know that the hub is here, when it is time to.
func (d *Dispatch) nudge(now time.Time) {
	if len(d.nudges) == 0 {
		return
	}
	if now.Before(d.nudges[0]) {
		d.wakeAt(d.nudges[0])
		return
	}
	for key, name := range d.known.names {
		if d.session(name) == nil {
			d.publish(wire.NodeID(key), wire.NudgeFrame(wire.Tag{}))
		}
	}
	if d.nudges = d.nudges[1:]; len(d.nudges) > 0 {
		d.wakeAt(d.nudges[0])
	}
}
