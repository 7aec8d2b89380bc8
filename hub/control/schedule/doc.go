// Package schedule gives pods their nodes. It is the driver around package sched, and the only caller of it:
//
//	Pods, Nodes, Namespaces ──changes──► snapshot ─┐
//	                                               ├─► sched.Schedule ──► one Commit of many bindings
//	pods without a node ──────► queue ─────────────┘          └─► PodScheduled=False, FailedScheduling, parked
//
// One goroutine owns the snapshot and the queue. A decision is believed at once (the pod is put on its node in the
// snapshot), so that the next one counts with it, and taken back when the commit fails. A pod that fits nowhere is parked:
// it costs nothing until a node changes or a pod goes away, and its condition and event are written when they say
// something new. A loop that waits has no timer.
package schedule
