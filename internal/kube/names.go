package kube

import "time"

// Labels, annotations and taints of Petrel's own, and the Kubernetes ones that its parts must agree on.
const (
	// AutonomyAnnotation on a Pod or a Node ("forever" or a Go duration) says how long a dark node keeps its pods
	// before they are evicted. The Pod's wins over the Node's; without either, the pod's own tolerations decide.
	AutonomyAnnotation = "petrel.dev/autonomy"
	// NodeKeyAnnotation on a Node holds the fingerprint of the device key that may speak for it. Deleting the Node
	// revokes the device.
	NodeKeyAnnotation = "petrel.dev/node-key"
	// JoinTokenAnnotation on a Node is the id of the join token that its device has joined with last.
	JoinTokenAnnotation = "petrel.dev/join-token"
	// NodeLabelsAnnotation on a Node holds the labels that its device has last reported of itself, as JSON: those it may
	// change. A label that a user has set otherwise stays as it is.
	NodeLabelsAnnotation = "petrel.dev/node-labels"
	// NodeConditionPrefix begins the types of conditions that only a node's own agent writes, except DarkCondition, which is
	// the hub's.
	NodeConditionPrefix = "petrel.dev/"
	// BoardLabel says which board a node is, for example "raspberry-pi-4".
	BoardLabel = "petrel.dev/board"
	// SerialLabel is the serial number of a node's board, in small letters: what is printed on its box, mostly.
	SerialLabel = "petrel.dev/serial"
	// ArchVariantLabel says which variant of kubernetes.io/arch a node is ("v6" of arm), where not every variant runs
	// everything.
	ArchVariantLabel = "petrel.dev/arch-variant"
	// ArchitecturesAnnotation on a pod names the architectures, separated by commas and as in kubernetes.io/arch, for which
	// its images exist. It wins over all image reports of nodes: the pod's author knows best.
	ArchitecturesAnnotation = "petrel.dev/architectures"
	// MeteredLabel on a Node ("true") says that its link is paid by the byte. Image pulls are planned and statistics asked for
	// accordingly.
	MeteredLabel = "petrel.dev/metered"
	// PrefetchAnnotation on a DaemonSet, a StatefulSet or a Deployment ("true" or "false") says whether a rolling update has the new images on a node
	// before the old pod goes. Without it that is so on metered nodes.
	PrefetchAnnotation = "petrel.dev/prefetch"
	// SyncPeriodAnnotation on a HorizontalPodAutoscaler is how often it is computed, as a Go duration.
	SyncPeriodAnnotation = "petrel.dev/sync-period"
	// DarkCondition is the Node condition that distinguishes "not seen, and since when" from "broken".
	DarkCondition = "petrel.dev/Dark"

	// Conditions of a Node that its agent sets where the machine can measure: true while the board needs attention.
	UnderVoltageCondition = "petrel.dev/UnderVoltage"
	ThrottledCondition    = "petrel.dev/Throttled"
	TemperatureCondition  = "petrel.dev/HighTemperature"
	WearCondition         = "petrel.dev/StorageWorn"

	TaintNotReady    = "node.kubernetes.io/not-ready"
	TaintUnreachable = "node.kubernetes.io/unreachable"
)

// StatsWindowHeader is a header of a node's /stats/summary: over which time its rates are, for which that form has no field.
const StatsWindowHeader = "Petrel-Window"

// StatsPodParameter is a query parameter of a node's /stats/summary: the UID of a pod to answer about; it may come more than once. Without
// it the answer is about all pods.
const StatsPodParameter = "pod"

// RuntimeHandler is the handler of a RuntimeClass that every node has besides the default one: both are runc.
const RuntimeHandler = "runc"

// Networks of a cluster unless its operator chooses others.
const (
	DefaultServiceCIDR = "10.43.0.0/16"
	DefaultDomain      = "cluster.local"
)

// ServiceAddresses is the managed-by label's value on the IPAddresses of Services, as Kubernetes' allocator sets it. Those without it
// belong to whom has made them.
const ServiceAddresses = "ipallocator.k8s.io"

// DarkGrace is how long a node may be unheard of before it is called dark: three keepalives of 60 s would be the
// strict reading, but the hub sees a broken session at once in most cases, so 40 s as in Kubernetes.
const DarkGrace = 40 * time.Second
