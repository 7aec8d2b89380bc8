// Package sched decides where a pod runs. It is a function: a [Snapshot] of the fleet and a pod in, a [Decision] out. There
// is no clock, no goroutine and no I/O here; who calls it keeps the snapshot up to date (hub/control/schedule does).
//
//	nodes ──filters──► feasible nodes ──scores──► best node
//	           │
//	           └─ each refusal has its reason; a pod that fits nowhere gets them counted:
//	              "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint {gpu: true}."
//
// The rules and the words are those of Kubernetes' scheduler, so that what people know about it holds. Where it samples
// nodes or breaks ties at random, sched looks at every node and breaks ties by the pod's UID: the same question always
// gets the same answer.
//
// To add a rule: a type with prepare and refuse in filter.go's table, or with prepare and score in score.go's; a script in
// testdata that shows it; a line in docs/scheduler.md.
package sched
