package dispatch

import (
	"time"

	"petrel.dev/petrel/internal/contain"
	"petrel.dev/petrel/internal/wire"
)

// Whatever all nodes get costs the hub some tenths of a millisecond for each node: a batch, its acknowledgement, its answer. So
// changes of it are gathered for shareEach for each connected node, maxGather at most. A change that comes when nothing was
// shared for as long goes at once.
const (
	shareEach = time.Millisecond
	maxGather = time.Second
)

// gather returns how long changes are gathered for so many nodes.
func gather(nodes int) time.Duration { return min(maxGather, time.Duration(nodes)*shareEach) }

// share shares what has changed, unless it is to be gathered for some time more. What a pod has to find on its node does not wait
// once a pod is about to be sent.
func (d *Dispatch) share(now time.Time) {
	pods := d.podPut
	d.podPut = false
	if stale, beforePods := d.set.HasStale(); !stale {
		return
	} else if now.Before(d.shareAt) && !(beforePods && pods) {
		d.wakeAt(d.shareAt)
		return
	}
	for _, k := range d.set.Stale() {
		contain.Go(d.cfg.Log, "dispatch/shared", k.String(), func() { d.set.Share(k) })
	}
	d.spread()
	d.shareAt = now.Add(gather(d.sessions()))
}

// sharedChanged passes a change of what all nodes get to all sessions.
func (d *Dispatch) sharedChanged(r *wire.Round) {
	for _, n := range d.byName {
		if n.current != nil {
			n.down.SharedChanged(r)
			d.touched[n] = struct{}{}
		}
	}
}

// sessions returns how many nodes are connected.
func (d *Dispatch) sessions() (n int) {
	for _, x := range d.byName {
		if x.current != nil {
			n++
		}
	}
	return n
}
