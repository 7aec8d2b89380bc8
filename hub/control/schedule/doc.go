// Package schedule gives pods their nodes. It is the driver around package sched, and the only caller of it:
//
//	Pods, Nodes, Namespaces ──changes──► snapshot ─┐
//	                                               ├─► sched.Schedule ──► one Commit of many bindings
//	pods without a node ──────► queue ─────────────┘          └─► sched.Preempt ─► PodScheduled=False, parked, victims evicted
//
// One goroutine owns the snapshot and the queue. A decision is assumed at once (the pod is put on its node in the
// snapshot), so that the next one counts it, and undone when the commit fails. A pod that fits nowhere is parked: it is tried again
// when something changes that can help it, and every five minutes in case a rule of what helps is wrong. Its condition and Event are
// written when the reason changes.
package schedule
