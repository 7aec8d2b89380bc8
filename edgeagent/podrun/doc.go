// Package podrun runs pods: it makes what a node's desired set says true, one pod at a time, one step at a time.
//
//	desired set ──► Manager ──► one worker a pod:   observe ─► step ─► actions
//	                                                   ▲                  │
//	                                                   └──────────────────┘
//
// step is a pure function of what is wanted, what is observed and the time; it yields actions, the pod's status as
// kubelet would write it, and when to look again. The worker runs the actions and observes again. There is no recovery
// path: after a restart of the agent or of the machine the worker observes (containers, mounts, namespaces, the last
// status on disk) and the same step decides. A pod is keyed by its UID; its states move forward only, and restarts of
// its containers happen inside Running.
//
// The package knows no container engine: it works on a cruntime.Runtime.
package podrun
