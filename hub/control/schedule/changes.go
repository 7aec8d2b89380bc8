package schedule

import (
	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/sched"
)

// changes are what has happened to the fleet since pods that wait were last compared with it. The zero value is nothing.
type changes struct {
	all   sched.Change
	nodes map[string]sched.Change // those that concern one node
}

// add notes a change, of a node unless that is "".
func (c *changes) add(what sched.Change, node string) {
	c.all |= what
	if what == 0 || node == "" {
		return
	}
	if c.nodes == nil {
		c.nodes = map[string]sched.Change{}
	}
	c.nodes[node] |= what
}

// ofNodes are the changes of nodes themselves: they are rare, and people see in messages how many nodes there are.
const ofNodes = sched.NodeCame | sched.NodeGone | sched.NodeLabels | sched.NodeTaints | sched.NodeRoom

// wakeQueue has those pods tried again that the changes may help.
func (s *Scheduler) wakeQueue() {
	if s.changes.all == 0 {
		return
	}
	if len(s.queue.groups) > 0 {
		s.queue.wake(&s.changes, func(e *entry, node string) bool { return s.snap.Admits(e.prepared, node) })
		if s.changes.all&ofNodes != 0 {
			s.queue.refresh()
		}
	}
	s.changes = changes{}
}

// node applies a changed node.
func (s *Scheduler) node(c control.Change) {
	if c.New == nil {
		s.snap.RemoveNode(c.Old.GetName())
		delete(s.links, c.Old.GetName())
		s.snap.SetLink(c.Old.GetName(), 100) // a later node of that name is another one
		s.changes.add(sched.NodeGone, c.Old.GetName())
		return
	}
	n := c.New.(*corev1.Node)
	what := sched.NodeCame
	if c.Old != nil {
		what = sched.NodeChange(c.Old.(*corev1.Node), n)
	}
	if what != 0 {
		s.snap.SetNode(n)
		s.changes.add(what, n.Name)
	}
}
