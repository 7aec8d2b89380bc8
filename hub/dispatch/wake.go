package dispatch

import (
	"container/heap"
	"time"
)

// wakes are the times at which nodes' sessions have something to do. A tick works on the nodes whose time has come and looks at no
// other: with a thousand nodes there are hundreds of ticks a second.
type wakes []nodeWake

// nodeWake is one time of a node. It counts if it is still the node's next, see node.due.
type nodeWake struct {
	at   time.Time
	node *node
}

func (w wakes) Len() int           { return len(w) }
func (w wakes) Less(i, j int) bool { return w[i].at.Before(w[j].at) }
func (w wakes) Swap(i, j int)      { w[i], w[j] = w[j], w[i] }
func (w *wakes) Push(x any)        { *w = append(*w, x.(nodeWake)) }
func (w *wakes) Pop() any {
	old := *w
	x := old[len(old)-1]
	old[len(old)-1] = nodeWake{}
	*w = old[:len(old)-1]
	return x
}

// wakeAt makes tick run at t or before; zero changes nothing.
func (d *Dispatch) wakeAt(t time.Time) { d.wake = earliest(d.wake, t) }

// wakeNode makes tick work on a node at t or before; zero changes nothing.
func (d *Dispatch) wakeNode(n *node, t time.Time) {
	if !t.IsZero() && (n.due.IsZero() || t.Before(n.due)) {
		n.due = t
		heap.Push(&d.wakes, nodeWake{t, n})
	}
}

// nextWake returns when tick has to run; zero: not at all.
func (d *Dispatch) nextWake() time.Time {
	for len(d.wakes) > 0 && !d.wakes[0].at.Equal(d.wakes[0].node.due) {
		heap.Pop(&d.wakes) // an earlier one has come before it
	}
	if len(d.wakes) == 0 {
		d.wakes = nil
		return d.wake
	}
	return earliest(d.wake, d.wakes[0].at)
}

// dueNodes returns the nodes whose time has come; they have no other time until they are given one.
func (d *Dispatch) dueNodes(now time.Time) (due []*node) {
	for len(d.wakes) > 0 && !d.wakes[0].at.After(now) {
		if w := heap.Pop(&d.wakes).(nodeWake); w.at.Equal(w.node.due) {
			w.node.due = time.Time{}
			due = append(due, w.node)
		}
	}
	return due
}
