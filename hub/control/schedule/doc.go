// Package schedule gives pods their nodes. It is the driver around package sched, and the only caller of it:
//
//	Pods, Nodes, Namespaces ──changes──► snapshot ─┐
//	                                               ├─► sched.Schedule ──► one Commit of many bindings
//	pods without a node ──────► queue ─────────────┘          └─► PodScheduled=False, FailedScheduling, parked
//
// One goroutine owns the snapshot and the queue. A decision is assumed at once (the pod is put on its node in the
// snapshot), so that the next one counts it, and undone when the commit fails. A pod that fits nowhere is parked: it costs
// nothing until a node changes or a pod goes away, and its condition and Event are written when the reason changes. While all
// pods are parked there is no timer.
package schedule
