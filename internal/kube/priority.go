package kube

// SystemPriorities are the PriorityClasses that every cluster has, with upstream's values: the hub makes them at its start, and
// obeys them also while they are not there.
var SystemPriorities = map[string]int32{
	"system-node-critical":    2_000_001_000,
	"system-cluster-critical": 2_000_000_000,
}
