package dispatch

import (
	"context"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/hub/dispatch/kubelet"
)

// What other parts of the hub use of a Dispatch, from any goroutine. OpenStream is in streams.go.

// Presence reports whether a node has an open session, and returns when it was last seen: the zero time for one not seen
// since this hub started, and now for a connected one whose packets the bus does not see.
func (d *Dispatch) Presence(node string) (connected bool, lastSeen time.Time) {
	s := d.pres.of(node)
	if !s.connected {
		return false, s.last
	}
	if t := d.pres.lastSeen(s.device); !t.IsZero() {
		return true, latest(t, s.last)
	}
	return true, time.Now()
}

// Watch calls f whenever a node's presence changes, until ctx ends. It returns at once. f must not block.
func (d *Dispatch) Watch(ctx context.Context, f func(node string)) { d.pres.watch(ctx, f) }

// Lease returns the Lease by which clients of Kubernetes see that a node is alive, as of now. It is not stored and not renewed: it
// has the time when the node was last seen.
func (d *Dispatch) Lease(n *corev1.Node) *coordinationv1.Lease {
	_, seen := d.Presence(n.Name)
	return kubelet.Lease(n, seen, d.pres.of(n.Name).keepalive)
}

// Subscribe calls f with the architectures that images are known to exist for, see images.Images.
func (d *Dispatch) Subscribe(ctx context.Context, f func(image string, architectures []string)) {
	d.images.Subscribe(ctx, f)
}

// SubscribeNodes calls f with the nodes that have an image, see images.Images.
func (d *Dispatch) SubscribeNodes(ctx context.Context, f func(image, node string, has bool)) {
	d.images.SubscribeNodes(ctx, f)
}

// AgentPanics returns how many panics each node's agent has contained since it started, by node, as the agents last
// reported. Nodes without any are left out; after a start of the hub a node is in it once it has connected.
func (d *Dispatch) AgentPanics() map[string]uint64 { return d.in.agentPanics() }

// StoreHasRoom makes the intake write reports that the store had no room for.
func (d *Dispatch) StoreHasRoom() { d.in.storeHasRoom() }
