// Package node allocates pod networks to nodes, keeps their conditions and taints, and evicts pods.
//
// A node's session with the hub is its sign of life; nothing is stored to prove it. A node that has been silent for DarkGrace is
// dark: its conditions become Unknown, it is tainted unreachable, and its pods count as not ready, so that Services leave them
// out. The node itself is not touched, and all of it is undone when the node returns. Tolerations and kube.AutonomyAnnotation
// decide how long a dark node keeps its pods before they are evicted. While every node is dark, the hub assumes that it is
// itself cut off, and evicts nothing.
//
// These are five jobs, each with its own state and file. reconcile runs them one after another for a node:
//
//	networks    cidr.go                     each Node gets a /24
//	darkness    darkness.go, conditions.go  conditions of dark nodes, readiness of their pods
//	taints      taints.go                   what follows from conditions and darkness
//	eviction    evict.go, tolerate.go       pods that do not tolerate the taints
//	orphans     orphans.go                  pods of a Node that does not exist
package node

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
)

// Config is what the controller needs.
type Config struct {
	Client   control.Client
	Events   control.Events // as node-controller
	Presence Presence
	PodCIDR  netip.Prefix  // the cluster's; each node gets a /24 of it
	Grace    time.Duration // before a silent node is dark; kube.DarkGrace when 0
	Log      *slog.Logger
}

// Controller reconciles Nodes and the pods on them. Its fields are set by New and never nil. The jobs' state is owned by the
// loop's one worker and needs no lock; only fleet, which the feed's goroutine writes, has one.
type Controller struct {
	client   control.Client
	events   control.Events
	loop     *control.Loop
	fleet    *fleet
	networks *networks
	darkness *darkness
	eviction *eviction
	orphans  *orphans
}

// New returns a controller; Run starts it.
func New(cfg Config) (*Controller, error) {
	networks, err := newNetworks(cfg.Client, cfg.PodCIDR)
	if err != nil {
		return nil, err
	}
	if cfg.Grace == 0 {
		cfg.Grace = kube.DarkGrace
	}
	fleet := newFleet()
	c := &Controller{
		client: cfg.Client, events: cfg.Events, fleet: fleet, networks: networks,
		darkness: &darkness{client: cfg.Client, events: cfg.Events, presence: cfg.Presence, grace: cfg.Grace,
			firstSeen: map[string]time.Time{}, reported: map[string]reported{}},
		eviction: &eviction{client: cfg.Client, events: cfg.Events, fleet: fleet, observed: map[string]map[string]observation{}},
		orphans:  &orphans{client: cfg.Client, missing: map[string]time.Time{}},
	}
	c.loop = &control.Loop{
		Name: "node", Client: cfg.Client, Log: cfg.Log,
		Workers:   1, // it owns the jobs' state
		Reconcile: c.reconcile,
		Sources: []control.Source{
			{GVK: kube.Node, Keys: c.nodeKeys},
			{GVK: kube.Pod, Keys: c.podKeys},
		},
	}
	return c, nil
}

// Run reconciles until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	c.eviction.start = time.Now()
	var wg sync.WaitGroup
	wg.Go(func() { c.darkness.presence.Watch(ctx, func(node string) { c.loop.Enqueue(control.Key{Name: node}) }) })
	err := c.loop.Run(ctx)
	wg.Wait()
	return err
}

// nodeKeys returns the node, and all dark ones when the first node comes back (or joins): evictions may begin then.
func (c *Controller) nodeKeys(ch control.Change) []control.Key {
	keys := []control.Key{{Name: ch.Object().GetName()}}
	for _, n := range c.fleet.saw(ch) {
		keys = append(keys, control.Key{Name: n})
	}
	return keys
}

// podKeys returns the node of a changed pod when that node is dark, or has NoExecute taints, or was dark and a readiness gate has kept the
// pod from being ready again; on other nodes a change of a pod needs nothing.
func (c *Controller) podKeys(ch control.Change) []control.Key {
	p, ok := ch.New.(*corev1.Pod)
	if !ok || p.Spec.NodeName == "" {
		return nil
	}
	n, ok := control.Get[*corev1.Node](c.client, kube.Node, "", p.Spec.NodeName)
	if ok && !control.NodeDark(n) && !anyNoExecute(n) && !notReadyByDarkness(p) {
		return nil
	}
	return []control.Key{{Name: p.Spec.NodeName}}
}

func anyNoExecute(n *corev1.Node) bool {
	for _, t := range n.Spec.Taints {
		if t.Effect == corev1.TaintEffectNoExecute {
			return true
		}
	}
	return false
}

func (c *Controller) reconcile(ctx context.Context, key control.Key) (time.Duration, error) {
	n, ok := control.Get[*corev1.Node](c.client, kube.Node, "", key.Name)
	if !ok {
		c.networks.forget(key.Name)
		c.darkness.forget(key.Name)
		c.eviction.forget(key.Name)
		return c.orphans.collect(ctx, key.Name)
	}
	c.orphans.forget(key.Name)
	now := time.Now()
	presence, dark, wait := c.darkness.of(n, now)
	var podsErr error
	if !dark { // before anybody sees that the node is back: rollouts replace at once what is on a live node and not ready
		if podsErr = c.darkness.markPods(ctx, n, dark, now); apierrors.IsConflict(podsErr) {
			return 0, podsErr // the node's own reports come just now; soon again
		}
	}
	n, err := c.write(ctx, n, dark, presence.silent, now)
	if err != nil || n == nil {
		return 0, control.JoinErrors(podsErr, err)
	}
	if dark { // after the node: what is deferred there is not taken for broken
		podsErr = c.darkness.markPods(ctx, n, dark, now)
	} else {
		c.darkness.returned(n.Name)
	}
	evict, err := c.eviction.run(ctx, n, presence, now)
	return soonest(wait, evict), control.JoinErrors(podsErr, err)
}

// write writes what changed of the node: status first, then taints and pod network in one write. It returns the node as it
// is now, nil when it is gone.
func (c *Controller) write(ctx context.Context, n *corev1.Node, dark bool, since, now time.Time) (*corev1.Node, error) {
	n, err := c.darkness.writeConditions(ctx, n, dark, since, now)
	if err != nil || n == nil {
		return nil, err
	}
	up := n.DeepCopy()
	up.Spec.Taints = taints(n, dark, now)
	if err := c.networks.assign(up); err != nil {
		c.events.Event(n, corev1.EventTypeWarning, "CIDRNotAvailable", "%v", err)
	}
	if equality.Semantic.DeepEqual(up.Spec, n.Spec) {
		return n, nil
	}
	got, err := c.client.Update(ctx, up, "")
	if err != nil {
		return nil, control.IgnoreNotFound(err)
	}
	return got.(*corev1.Node), nil
}

// soonest returns the shorter of two waits, where 0 is none.
func soonest(a, b time.Duration) time.Duration {
	switch {
	case a == 0:
		return b
	case b == 0:
		return a
	}
	return min(a, b)
}
