package imageplacement

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/sched"
)

// reason is that of the condition DisruptionTarget and of the Event of a pod which is deleted here.
const reason = "ImageNotForArchitecture"

// Images reports for which architectures images exist, and which nodes have reported them.
type Images interface {
	// Subscribe calls saw with all that is known and then with each change, one call at a time, until ctx ends. Without
	// architectures: nothing is known of this image any more. saw must return at once.
	Subscribe(ctx context.Context, saw func(image string, architectures []string))
	// SubscribeNodes calls saw with each node that reports an image, and then with each change, likewise.
	SubscribeNodes(ctx context.Context, saw func(image, node string, has bool))
}

// Config is what the controller needs.
type Config struct {
	Client control.Client
	Events control.Events
	Images Images
	Log    *slog.Logger
}

// Controller deletes pods that wait for an image on a node that it does not exist for. The fields before mu do not change after New.
type Controller struct {
	client control.Client
	events control.Events
	images Images
	loop   *control.Loop

	mu       sync.Mutex
	known    map[string][]string        // architectures by image; none is empty; guarded by mu
	reported map[string]map[string]bool // the nodes that report an image, by image; none is empty; guarded by mu
	waiting  map[control.Key][]string   // the images of pods that wait for one on their node; guarded by mu
}

// New returns a controller; Run starts it.
func New(cfg Config) *Controller {
	c := &Controller{client: cfg.Client, events: cfg.Events, images: cfg.Images,
		known: map[string][]string{}, reported: map[string]map[string]bool{}, waiting: map[control.Key][]string{}}
	c.loop = &control.Loop{
		Name: "imageplacement", Client: cfg.Client, Log: cfg.Log,
		Reconcile: c.reconcile,
		Sources:   []control.Source{{GVK: kube.Pod, Keys: c.pod}, {GVK: kube.Node, Keys: c.node}},
	}
	return c
}

// Run moves pods until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	c.images.Subscribe(ctx, c.sawArchitectures)
	c.images.SubscribeNodes(ctx, c.sawNode)
	return c.loop.Run(ctx)
}

// pod keeps which pods wait for an image.
func (c *Controller) pod(ch control.Change) []control.Key {
	key := control.KeyOf(ch.Object())
	c.mu.Lock()
	defer c.mu.Unlock()
	p, ok := ch.New.(*corev1.Pod)
	if !ok || !waits(p) {
		delete(c.waiting, key)
		return nil
	}
	c.waiting[key] = kube.PodImages(p)
	return []control.Key{key}
}

// node returns all pods that wait: one may fit on a node that is new or that has changed what it takes.
func (c *Controller) node(ch control.Change) (keys []control.Key) {
	n, ok := ch.New.(*corev1.Node)
	if !ok {
		return nil
	}
	if old, ok := ch.Old.(*corev1.Node); ok && sched.NodeChange(old, n)&^sched.NodeRoom == 0 {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for key := range c.waiting {
		keys = append(keys, key)
	}
	return keys
}

func (c *Controller) sawArchitectures(image string, architectures []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known[image] = architectures; len(architectures) == 0 {
		delete(c.known, image)
		return
	}
	c.enqueue(image)
}

func (c *Controller) sawNode(image, node string, has bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	nodes := c.reported[image]
	if !has {
		if delete(nodes, node); len(nodes) == 0 {
			delete(c.reported, image)
		}
		return
	}
	if nodes == nil {
		nodes = map[string]bool{}
		c.reported[image] = nodes
	}
	nodes[node] = true
	c.enqueue(image)
}

// enqueue brings up the pods that wait and have the image. c.mu is held.
func (c *Controller) enqueue(image string) {
	for key, images := range c.waiting {
		if slices.Contains(images, image) {
			c.loop.Enqueue(key)
		}
	}
}

// architectures returns for which an image exists; none when that is not known.
func (c *Controller) architectures(image string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.known[image]
}

// reports reports whether a node has itself looked at an image. What others report of it is not enough to take pods from a node: theirs may
// be another registry's, or a lie that draws the pods.
func (c *Controller) reports(node, image string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reported[image][node]
}

func (c *Controller) reconcile(ctx context.Context, key control.Key) (time.Duration, error) {
	p, ok := control.Get[*corev1.Pod](c.client, kube.Pod, key.Namespace, key.Name)
	if !ok || !waits(p) {
		return 0, nil
	}
	n, ok := control.Get[*corev1.Node](c.client, kube.Node, "", p.Spec.NodeName)
	if !ok {
		return 0, nil
	}
	image, other := c.better(p, n)
	if other == "" {
		return 0, nil
	}
	return 0, c.remove(ctx, p, image, other)
}

// remove deletes a pod.
func (c *Controller) remove(ctx context.Context, p *corev1.Pod, image, other string) error {
	deleted, err := control.Evict(ctx, c.client, p, reason, "The image "+image+" does not exist for the architecture of node "+p.Spec.NodeName)
	if deleted {
		c.events.Event(p, corev1.EventTypeNormal, reason, "Deleting pod, which cannot start on node %s: image %s does not exist for its architecture; its controller makes another one, which node %s could run",
			p.Spec.NodeName, image, other)
	}
	return err // a conflict is tried again
}
