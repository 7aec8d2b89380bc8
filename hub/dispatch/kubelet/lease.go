package kubelet

import (
	"crypto/sha256"
	"fmt"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
)

// Lease returns the Lease that a kubelet would write. seen is zero when the node has not been seen since the hub started;
// then its last status is its last sign of life. keepalive is zero when it is not known.
func Lease(n *corev1.Node, seen time.Time, keepalive time.Duration) *coordinationv1.Lease {
	if c := control.NodeCondition(n, corev1.NodeReady); c != nil && c.LastHeartbeatTime.After(seen) {
		seen = c.LastHeartbeatTime.Time
	}
	// A connection is given up after one and a half keepalives without a packet: as long, a node counts as living.
	seconds := int32(max(kube.DarkGrace, keepalive+keepalive/2) / time.Second)
	holder := n.Name
	l := &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{
			UID: leaseUID(n.UID), CreationTimestamp: n.CreationTimestamp,
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: n.Name, UID: n.UID}},
		},
		Spec: coordinationv1.LeaseSpec{HolderIdentity: &holder, LeaseDurationSeconds: &seconds},
	}
	if !seen.IsZero() {
		l.Spec.RenewTime = &metav1.MicroTime{Time: seen}
	}
	return l
}

// leaseUID returns a UID that follows from the Node's: version 8 of RFC 9562, whose content the application defines.
func leaseUID(node types.UID) types.UID {
	h := sha256.Sum256([]byte("lease of node " + node))
	b := h[:16]
	b[6], b[8] = b[6]&0x0f|0x80, b[8]&0x3f|0x80
	return types.UID(fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:]))
}
