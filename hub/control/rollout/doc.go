// Package rollout decides how far a staged rollout of a DaemonSet or a Deployment may go: in waves, each of which must be healthy for a
// while before the next, with approval where that is asked for, and not beyond a number of failures.
//
//	annotations ─► Parse ─► Spec ┐
//	pods and nodes ─► Progress ──┼─► Decide ─► the open wave, the new State, a condition, Events, perhaps the way back
//	State, clock ────────────────┘
//
// It is pure: the controllers of both kinds ask it before they take a step, and write what it returns. What a wave is differs: of a DaemonSet
// nodes, by label or percentage; of a Deployment a percentage of its replicas. See docs/fleet-rollouts.md.
package rollout
