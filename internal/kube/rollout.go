package kube

// Annotations of a DaemonSet or a Deployment that make its rollouts staged. docs/fleet-rollouts.md describes them.
const (
	// RolloutPrefix begins all of them.
	RolloutPrefix = "petrel.dev/rollout-"

	RolloutWaves       = RolloutPrefix + "waves"
	RolloutSoak        = RolloutPrefix + "soak"
	RolloutApproval    = RolloutPrefix + "approval"
	RolloutMaxFailures = RolloutPrefix + "max-failures"
	RolloutOnFailure   = RolloutPrefix + "on-failure"
	RolloutPodDeadline = RolloutPrefix + "pod-deadline"
	RolloutPaused      = RolloutPrefix + "paused"
	// RolloutApproved is written by a user who approves a wave: REVISION/WAVE.
	RolloutApproved = RolloutPrefix + "approved"
	// RolloutState is written by the controllers only.
	RolloutState = RolloutPrefix + "state"

	// RolloutCondition is the condition that says how far a staged rollout is.
	RolloutCondition = "petrel.dev/Rollout"
)
