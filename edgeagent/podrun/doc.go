// Package podrun runs pods: it makes what a node's desired set says true, one pod at a time, one step at a time.
//
//	desired set ──► Manager ──► one worker a pod:   observe ─► step ─► actions
//	                                                 ▲   ▲                │
//	                                                 │   └────────────────┤ done at once
//	                                               inbox ◄── jobs ◄───────┘ beside the worker: pulls, stops, hooks, probes
//
// The step is lifecycle.Step, a pure function of what is wanted, what is observed and the time; it yields actions, the pod's
// status as kubelet would write it, and when to look again. The worker runs the actions and observes again. There is no recovery
// path: after a restart of the agent or of the machine the worker observes (containers, mounts, namespaces, the last
// status on disk) and the same step decides. A pod is keyed by its UID; its states move forward only, and restarts of
// its containers happen inside Running.
//
// A worker's state has one writer, its own goroutine, and no lock. A job works on a pod's handle, which has nothing of that state
// but a published snapshot, and leaves its outcome as a value in the worker's inbox. The Manager has the handles too, and asks
// their snapshots. TestOneWriter holds this.
//
// The package knows no container engine: it works on a cruntime.Runtime. What a pod means for a runtime is podspec's matter; pulls,
// streams and the slots that pods share are in rooms below.
package podrun
