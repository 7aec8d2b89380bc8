package hub

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/hub/objects/overlay"
	"petrel.dev/petrel/internal/kube"
)

// overlayStore returns the store with the synthesized objects in it.
func (h *Hub) overlayStore() (*overlay.Store, error) {
	lease, ok := h.kinds.Lookup(kube.Lease)
	node, served := h.kinds.Lookup(kube.Node)
	if !ok || !served {
		return nil, fmt.Errorf("leases of nodes: %s or %s is not served", kube.Lease, kube.Node)
	}
	return overlay.New(overlay.Config{Store: h.db, Objects: h.objects, Log: h.part("overlay")},
		// The Lease that clients of Kubernetes read, made from when the dispatcher last saw the node.
		overlay.Synthetic{
			Kind: lease, Namespace: corev1.NamespaceNodeLease, Source: node,
			Build: func(n kube.Object) kube.Object { return h.dispatch.Lease(n.(*corev1.Node)) },
			Why:   "the hub itself makes the leases of this namespace, one for each Node, from when it last received something from the node; they cannot be written",
		},
	)
}
