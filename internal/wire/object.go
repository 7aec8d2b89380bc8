package wire

// Kind names what an Object of a set is. Down: Pod, ConfigMap, Secret, Token, Service, Node, Peer, RuntimeClass, Claim, Reclaim. Up:
// PodStatus, NodeStatus, Event, Image, Volume.
type Kind string

const (
	// Desired state, hub to node.
	KindPod       Kind = "Pod"       // JSON of v1.Pod without its status' transient parts; UID of the pod
	KindConfigMap Kind = "ConfigMap" // JSON of v1.ConfigMap; UID of the object
	KindSecret    Kind = "Secret"    // JSON of v1.Secret; UID of the object
	KindToken     Kind = "Token"     // JSON of Token; UID is "<pod uid>/<audience>"
	KindService   Kind = "Service"   // JSON of svcproxy.Service (a Service joined with its endpoints); UID of the Service
	KindNode      Kind = "Node"      // JSON of v1.Node, trimmed to what the node must know of itself; UID of the Node
	KindPeer      Kind = "Peer"      // JSON of Peer: another node's pod network; UID of that Node
	// KindRuntimeClass is JSON of node.k8s.io/v1 RuntimeClass, trimmed to its name and handler; UID of the object.
	KindRuntimeClass Kind = "RuntimeClass"
	KindClaim        Kind = "Claim"   // JSON of kube.NodeClaim: a claim with its volume; UID of the claim
	KindReclaim      Kind = "Reclaim" // JSON of Reclaim: a volume that the node is to remove; UID of the volume's object

	// Observed state, node to hub.
	KindPodStatus  Kind = "PodStatus"  // JSON of PodReport; UID of the pod
	KindNodeStatus Kind = "NodeStatus" // JSON of v1.NodeStatus plus labels (NodeReport); UID "node"
	KindEvent      Kind = "Event"      // JSON of v1.Event; UID of the event, made on the node
	KindVolume     Kind = "Volume"     // JSON of VolumeReport; UID of the volume's object
	KindImage      Kind = "Image"      // JSON of ImageReport; UID is the image's name as the pod spells it
)

// ID is what an object is in a set: kind and UID, so that delete-and-recreate under one name comes out right.
type ID struct {
	Kind Kind
	UID  string
}

// Object is one member of a set. Version is opaque: two objects of one ID are the same if and only if it is equal.
type Object struct {
	ID
	Version   uint64
	Namespace string
	Name      string
	Data      []byte
}

// Token is a ServiceAccount token made by the hub for one pod. It stays in use, expired or not, until a newer one came.
type Token struct {
	PodUID         string `json:"podUID"`
	Namespace      string `json:"namespace"`
	ServiceAccount string `json:"serviceAccount"`
	Audience       string `json:"audience,omitempty"` // empty: the API server's own
	Token          string `json:"token"`
	ExpiresUnix    int64  `json:"expires"`
}

// Peer is another node of the pod network.
type Peer struct {
	Name    string   `json:"name"`
	PodCIDR []string `json:"podCIDR"`
	Address []string `json:"address"` // InternalIPs
}

// Reclaim says that a volume of this node is to be removed with its data.
type Reclaim struct {
	Volume string `json:"volume"` // name of the volume's object
	Handle string `json:"handle"` // name of the directory
}

// VolumeReport is what became of a Reclaim. Without Gone the node tries again.
type VolumeReport struct {
	Volume string `json:"volume"` // name of the volume's object
	Gone   bool   `json:"gone,omitempty"`
	Error  string `json:"error,omitempty"`
}

// PodReport is what a node says of one pod. Gone: the pod and all that belonged to it has been removed from the node,
// so the hub may delete the object; no further report of this UID follows.
type PodReport struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Gone      bool   `json:"gone,omitempty"`
	Status    []byte `json:"status,omitempty"` // JSON of v1.PodStatus
}

// NodeReport is what a node says of itself.
type NodeReport struct {
	Labels map[string]string `json:"labels,omitempty"` // kubernetes.io/arch, petrel.dev/board, ...
	Status []byte            `json:"status"`           // JSON of v1.NodeStatus
	Panics uint64            `json:"panics,omitempty"` // that the agent has contained since it started; older agents leave it out
}

// ImageReport is what a node knows of an image that its pods name: the platforms that it exists for, "arm64" or "arm/v7" of
// Linux, "windows/amd64" of another system. Local: it is known of a copy that was brought to the node by hand; the registry
// may have more.
type ImageReport struct {
	Platforms []string `json:"platforms"`
	Local     bool     `json:"local,omitempty"`
}
