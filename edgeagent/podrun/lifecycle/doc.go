// Package lifecycle is the life of a pod on its node as a function: Step takes what is wanted of a pod, what is observed of it and the
// time, and yields what to do, the pod's status as kubelet would write it, and when to look again.
//
// It has no goroutine, no clock and no I/O, and keeps nothing between two steps but what its caller hands in again. A State only grows;
// restarts of containers happen inside PodRunning. The rules are kubelet's where nothing else is said.
//
// testdata holds timelines: what happens, what the step does, the status in one line. TestInvariants lets anything happen in any order.
package lifecycle
