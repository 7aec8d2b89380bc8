package sched

import (
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/types"
)

// nomination is a promise: when there is room for the pod on the node, it is the pod's before that of others who are not more
// important.
type nomination struct {
	pod  *Pod
	node string
}

// Nominate promises room on a node to a pod, instead of what it was promised before; "" takes the promise back. The pod is not on the
// node: Schedule decides about it once there is room, which may then be elsewhere.
func (s *Snapshot) Nominate(pod *Pod, node string) {
	uid := pod.Object.UID
	old, had := s.nominations[uid]
	if had {
		delete(s.nominations, uid)
		if n := s.nodes[old.node]; n != nil {
			n.nominated = slices.DeleteFunc(n.nominated, func(p *Pod) bool { return p.Object.UID == uid })
		}
	}
	if node == "" {
		return
	}
	s.nominations[uid] = nomination{pod, node}
	if n := s.nodes[node]; n != nil {
		s.collectNominated(n)
	}
}

// collectNominated finds those that are nominated to n, in an order of their own: results must not depend on who came first.
func (s *Snapshot) collectNominated(n *node) {
	n.nominated = nil
	for _, nom := range s.nominations {
		if nom.node == n.name {
			n.nominated = append(n.nominated, nom.pod)
		}
	}
	slices.SortFunc(n.nominated, func(a, b *Pod) int { return strings.Compare(string(a.Object.UID), string(b.Object.UID)) })
}

// NominatedBelow returns the pods that a node is promised to and that are less important than pod.
func (s *Snapshot) NominatedBelow(pod *Pod, node string) (uids []types.UID) {
	n := s.nodes[node]
	if n == nil {
		return nil
	}
	for _, p := range n.nominated {
		if p.priority < pod.priority {
			uids = append(uids, p.Object.UID)
		}
	}
	return uids
}

// trial is a node as it would look with other pods on it. The snapshot has one, which is used for one node at a time.
type trial struct {
	node      // a copy, with its own sums and ports
	of        *node
	filters   []filter
	nominated []*Pod // those that go before the pod in question; on the node at first
	log       []step // what was done, for end to undo
}

// step is a pod that has come (1) or gone (-1).
type step struct {
	pod *Pod
	by  int32
}

// try begins a trial of n for pod. end must follow.
func (s *Snapshot) try(filters []filter, pod *Pod, n *node) *trial {
	t := &s.trial
	t.of, t.filters, t.log, t.nominated = n, filters, t.log[:0], t.nominated[:0]
	for _, p := range n.nominated {
		if s.yields(pod, p, n.name) {
			t.nominated = append(t.nominated, p)
		}
	}
	if len(t.nominated) > 0 {
		t.copy()
		for _, p := range t.nominated {
			t.move(p, 1)
		}
	}
	return t
}

// yields reports whether pod leaves room on a node for another that is nominated to it. Of equals that are all nominated, the older
// one does not wait until there is room for all.
func (s *Snapshot) yields(pod, nominated *Pod, node string) bool {
	a, b := pod.Object, nominated.Object
	switch {
	case a.UID == b.UID || nominated.priority < pod.priority:
		return false
	case nominated.priority > pod.priority || s.nominations[a.UID].node != node:
		return true
	case a.CreationTimestamp.Equal(&b.CreationTimestamp):
		return b.UID < a.UID
	}
	return b.CreationTimestamp.Before(&a.CreationTimestamp)
}

// copy makes the node the trial's own; it must come before the first move.
func (t *trial) copy() {
	if len(t.log) > 0 {
		return
	}
	ports := t.node.ports[:0]
	t.node = *t.of
	t.node.ports = append(ports, t.of.ports...)
	t.used.extended = nil
	t.used.add(resources{extended: t.of.used.extended}, 1)
}

// move lets a pod come (by 1) or go (by -1).
func (t *trial) move(p *Pod, by int32) {
	t.log = append(t.log, step{p, by})
	t.count += int64(by)
	t.used.add(p.requests, int64(by))
	if len(p.ports) > 0 {
		if by > 0 {
			t.node.ports = append(t.node.ports, p.ports...)
		} else {
			t.node.ports = without(t.node.ports, p.ports)
		}
	}
	t.adjust(p, by)
}

func (t *trial) adjust(p *Pod, by int32) {
	for _, f := range t.filters {
		if a, ok := f.(adjuster); ok {
			a.adjust(t.of, p, by)
		}
	}
}

// end takes back what the trial has changed in the filters.
func (t *trial) end() {
	for i := len(t.log) - 1; i >= 0; i-- {
		t.adjust(t.log[i].pod, -t.log[i].by)
	}
	t.log = t.log[:0]
}

// now returns the node as it is at this point of the trial.
func (t *trial) now() *node {
	if len(t.log) == 0 {
		return t.of
	}
	return &t.node
}

// fits reports whether the node takes the pod, with those that are nominated to it and without.
func (t *trial) fits() bool {
	if !passes(t.filters, t.now()) {
		return false
	}
	return t.aside(func() bool { return passes(t.filters, t.now()) })
}

// aside calls f while those that are nominated are not there; without any it returns true.
func (t *trial) aside(f func() bool) bool {
	if len(t.nominated) == 0 {
		return true
	}
	for _, p := range t.nominated {
		t.move(p, -1)
	}
	ok := f()
	for _, p := range t.nominated {
		t.move(p, 1)
	}
	return ok
}

// refusal returns why the node does not take the pod, nil when it does.
func (t *trial) refusal() (r *refused) {
	look := func() bool {
		n := t.now()
		if f := refusing(t.filters, n); f != nil {
			r = &refused{f, f.reasons(n), f.movable(n)}
		}
		return r == nil
	}
	if look() {
		t.aside(look)
	}
	return r
}

// movable reports whether the node, which does not take the pod, could if other pods left it.
func (t *trial) movable() (movable bool) {
	look := func() bool {
		f := refusing(t.filters, t.now())
		movable = f != nil && f.movable(t.now())
		return f == nil
	}
	if look() {
		t.aside(look)
	}
	return movable
}
