// Package node gives nodes their pod networks and tells the cluster how they are.
//
// A node's session with the hub is its sign of life; nothing is stored to prove it. A node not heard of for DarkGrace is
// dark: its conditions become Unknown, it is tainted unreachable, and its pods count as not ready, so that Services go
// around them. None of this is done to the node, and all of it is taken back when the node returns. How long a dark node
// keeps its pods before they are evicted is for tolerations and kube.AutonomyAnnotation to say; while every node is dark,
// the hub takes itself to be the one that is cut off, and evicts nothing.
package node

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
)

// Presence tells which nodes have a session with the hub.
type Presence interface {
	// Presence tells whether the node has a session now, and when something was last heard of it: zero when nothing was
	// since the hub started. When a session is found dead, that may be long ago.
	Presence(node string) (connected bool, lastHeard time.Time)
	// Watch calls f with the name of each node whose presence changes, until ctx ends. f returns quickly.
	Watch(ctx context.Context, f func(node string))
}

// Config is what the controller needs.
type Config struct {
	Client   control.Client
	Events   control.Events // as node-controller
	Presence Presence
	PodCIDR  netip.Prefix  // the cluster's; each node gets a /24 of it
	Grace    time.Duration // before a silent node is dark; kube.DarkGrace when 0
	Log      *slog.Logger
}

// Controller reconciles Nodes and the pods on them.
type Controller struct {
	client   control.Client
	events   control.Events
	presence Presence
	grace    time.Duration
	alloc    *allocator
	loop     *control.Loop

	// Owned by the one worker.
	start   time.Time                   // of Run
	met     map[string]time.Time        // when each Node was first seen
	given   map[string]netip.Prefix     // pod networks given out that the cache may not show yet
	sights  map[string]map[string]sight // by node and taint: see taintAges
	said    map[string]words            // by dark node
	missing map[string]time.Time        // since when pods are bound to a name that no Node has

	mu      sync.Mutex
	darkNow map[string]bool // all nodes in the cache
	lit     time.Time       // when last not all nodes were dark any more
}

// New returns a controller; Run starts it.
func New(cfg Config) (*Controller, error) {
	alloc, err := newAllocator(cfg.PodCIDR)
	if err != nil {
		return nil, err
	}
	c := &Controller{
		client: cfg.Client, events: cfg.Events, presence: cfg.Presence, grace: cfg.Grace, alloc: alloc,
		met: map[string]time.Time{}, given: map[string]netip.Prefix{}, sights: map[string]map[string]sight{}, said: map[string]words{}, missing: map[string]time.Time{}, darkNow: map[string]bool{},
	}
	if c.grace == 0 {
		c.grace = kube.DarkGrace
	}
	c.loop = &control.Loop{
		Name: "node", Client: cfg.Client, Log: cfg.Log,
		Workers:   1, // the allocator and the clocks are its own
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
	c.start = time.Now()
	var wg sync.WaitGroup
	wg.Go(func() { c.presence.Watch(ctx, func(node string) { c.loop.Enqueue(control.Key{Name: node}) }) })
	err := c.loop.Run(ctx)
	wg.Wait()
	return err
}

// nodeKeys: the node; and all dark ones, when the first node comes back (or joins) and evictions may begin.
func (c *Controller) nodeKeys(ch control.Change) []control.Key {
	name := ch.Object().GetName()
	keys := []control.Key{{Name: name}}
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.allDarkLocked()
	if ch.New == nil {
		delete(c.darkNow, name)
	} else {
		c.darkNow[name] = control.NodeDark(ch.New.(*corev1.Node))
	}
	if before && !c.allDarkLocked() {
		c.lit = time.Now()
		for n, dark := range c.darkNow {
			if dark {
				keys = append(keys, control.Key{Name: n})
			}
		}
	}
	return keys
}

// alone tells whether all other nodes are dark (or there are none).
func (c *Controller) alone(node string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for n, dark := range c.darkNow {
		if !dark && n != node {
			return false
		}
	}
	return true
}

func (c *Controller) allDarkLocked() bool {
	for _, dark := range c.darkNow {
		if !dark {
			return false
		}
	}
	return true
}

// podKeys: the node of a pod that is new there, or whose tolerations, annotations or readiness have changed; when the
// node is well there is nothing to do for it.
func (c *Controller) podKeys(ch control.Change) []control.Key {
	p, ok := ch.New.(*corev1.Pod)
	if !ok || p.Spec.NodeName == "" {
		return nil
	}
	n, ok := control.Get[*corev1.Node](c.client, kube.Node, "", p.Spec.NodeName)
	if ok && !control.NodeDark(n) && !anyNoExecute(n) {
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
		delete(c.met, key.Name)
		delete(c.given, key.Name)
		delete(c.sights, key.Name)
		delete(c.said, key.Name)
		return c.collect(ctx, key.Name)
	}
	delete(c.missing, key.Name)
	now := time.Now()
	if _, ok := c.met[key.Name]; !ok {
		c.met[key.Name] = now
	}
	who := c.contact(key.Name)
	dark, wait := who.darkAfter(c.grace, now)
	if !dark && !who.connected && control.NodeDark(n) {
		dark = true // it was dark before the hub started, and nothing says otherwise
	}
	n, err := c.tell(ctx, n, dark, who.silent, now)
	if err != nil || n == nil {
		return 0, err
	}
	if !dark {
		delete(c.said, n.Name)
	}
	podsErr := c.markPods(ctx, n, dark, now)
	evict, err := c.evict(ctx, n, who, now)
	return soonest(wait, evict), control.JoinErrors(podsErr, err)
}

func (c *Controller) contact(node string) contact {
	connected, seen := c.presence.Presence(node)
	silent := seen
	if met := c.met[node]; silent.Before(met) {
		silent = met
	}
	return contact{connected: connected, seen: seen, silent: silent}
}

// tell writes what changed of the node: status first, then taints and pod network. It returns the node as it is now, nil
// when it is gone.
func (c *Controller) tell(ctx context.Context, n *corev1.Node, dark bool, since, now time.Time) (*corev1.Node, error) {
	if dark {
		if c.said[n.Name] == nil {
			c.said[n.Name] = words{}
		}
		c.said[n.Name].hear(n.Status.Conditions)
	}
	if conds := conditions(n.Status.Conditions, c.said[n.Name], dark, since, now); !equality.Semantic.DeepEqual(conds, n.Status.Conditions) {
		was := control.NodeDark(n)
		up := n.DeepCopy()
		up.Status.Conditions = conds
		got, err := c.client.Update(ctx, up, "status")
		if err != nil {
			return nil, control.IgnoreNotFound(err)
		}
		n = got.(*corev1.Node)
		switch {
		case dark && !was:
			c.events.Event(n, corev1.EventTypeWarning, "NodeDark", "Node %s has not been heard of since %s", n.Name, since.UTC().Format(time.RFC3339))
		case !dark && was:
			c.events.Event(n, corev1.EventTypeNormal, "NodeBack", "Node %s is back", n.Name)
		}
	}
	up := n.DeepCopy()
	up.Spec.Taints = taints(n, dark, now)
	if err := c.network(up); err != nil {
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

// network gives n a pod network if it has none.
func (c *Controller) network(n *corev1.Node) error {
	if n.Spec.PodCIDR != "" {
		delete(c.given, n.Name)
		return nil
	}
	p, ok := c.given[n.Name]
	if !ok {
		var used []netip.Prefix
		for _, o := range control.List[*corev1.Node](c.client, kube.Node, "") {
			if u, err := netip.ParsePrefix(o.Spec.PodCIDR); err == nil {
				used = append(used, u)
			}
		}
		for _, u := range c.given {
			used = append(used, u)
		}
		var err error
		if p, err = c.alloc.free(used); err != nil {
			return fmt.Errorf("node %s: %w", n.Name, err)
		}
		c.given[n.Name] = p
	}
	n.Spec.PodCIDR = p.String()
	n.Spec.PodCIDRs = []string{p.String()}
	return nil
}

// soonest is the smaller of two waits, where 0 is none.
func soonest(a, b time.Duration) time.Duration {
	switch {
	case a == 0:
		return b
	case b == 0:
		return a
	}
	return min(a, b)
}
