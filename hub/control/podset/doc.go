// Package podset is what the controllers of pods share: ReplicaSet, DaemonSet, StatefulSet, and any kind that keeps pods of a
// template. Such a controller decides how many pods there should be, or which; podset finds, creates and deletes them.
//
//	change of a Pod ─► Keys ─► the owners that it has, had, or could have
//	                             │
//	                             ▼
//	reconcile(owner):  Claim ─► Claimed{Active, Ending, Ended}
//	                             │
//	       the controller's own decision: too few, too many, which
//	                             │
//	            ┌────────────────┴───────────────┐
//	   Create: 1, 2, 4, ... at a time     Victims ─► Delete
//
// # The contract
//
//   - A pod belongs to the owner that its controller reference names by UID. A controller claims before it counts: it
//     releases its pods that it no longer selects, and adopts those without an owner that it selects. Adoption asks the store
//     whether the owner is still what the cache shows (control.Claim): a pod with an owner that is gone would be collected.
//   - A controller counts what it has created before. Kubernetes keeps expectations for this: counters with a timeout, because
//     a watch may miss what it waits for. Here control.Loop calls Reconcile only when the cache shows all that was
//     committed before, so there is nothing to keep, and no timeout after which a controller counts wrongly.
//   - Creations start slowly: when the first is refused, the others would be too. A refusal (no room, no permission) holds
//     for the owner for 1 s to 1 min, whatever else changes, unless its spec does. Deletions are refused by no quota, so
//     they need no slow start.
//   - A pod on a dark node counts. The node controller decides whether it is replaced, by evicting it.
//
// Order, Claimed, FromTemplate and the slow start are plain functions of values, with the clock as an argument; Pods is the
// driver around them.
package podset
