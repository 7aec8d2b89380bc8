// Package disruption keeps the status of PodDisruptionBudgets: how many of a budget's pods are healthy, and how many may be
// evicted. Evictions take from it (package budget, hub/registry/podverbs); this controller counts again.
//
//	change of a Pod ─► the budgets that select it ─► count: healthy, desired, expected ─► status
//
// It also takes back a pod's condition DisruptionTarget when the deletion that it announced has not come.
package disruption

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/control/disruption/budget"
	"petrel.dev/petrel/internal/kube"
)

// Config is what the controller needs.
type Config struct {
	Client control.Client
	Events control.Events // as controllermanager
	Scales Scales
	Log    *slog.Logger
}

// Scales returns how many pods an object wants, from its scale subresource.
type Scales interface {
	// Scale returns the object that ref names in the namespace with its spec.replicas. obj is nil when there is none of that name; an
	// error says that its kind is not served or has no scale.
	Scale(ctx context.Context, ref *metav1.OwnerReference, namespace string) (obj kube.Object, replicas int32, err error)
}

// Controller reconciles PodDisruptionBudgets. Its fields are set by New and do not change.
type Controller struct {
	client control.Client
	events control.Events
	scales Scales
	loop   *control.Loop
	stale  *stale

	gathered control.Gatherer // has its own lock
}

// New returns a controller; Run starts it.
func New(cfg Config) *Controller {
	c := &Controller{client: cfg.Client, events: cfg.Events, scales: cfg.Scales, stale: newStale(cfg)}
	c.loop = &control.Loop{
		Name: "disruption", Client: cfg.Client, Log: cfg.Log,
		Reconcile: c.reconcile,
		Sources: []control.Source{
			{GVK: kube.PodDisruptionBudget},
			{GVK: kube.Pod, Keys: c.podKeys},
			{GVK: kube.Deployment, Keys: c.scaleKeys},
			{GVK: kube.ReplicaSet, Keys: c.scaleKeys},
		},
	}
	return c
}

// Run reconciles until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { _ = c.stale.loop.Run(ctx) }) // fails only for want of a Client, as the other
	err := c.loop.Run(ctx)
	wg.Wait()
	return err
}

// podKeys returns the budgets that select a pod, or did, when what they count of it has changed.
func (c *Controller) podKeys(ch control.Change) []control.Key {
	old, _ := ch.Old.(*corev1.Pod)
	pod, _ := ch.New.(*corev1.Pod)
	if old != nil && pod != nil && old.UID == pod.UID && maps.Equal(old.Labels, pod.Labels) && control.PodReady(old) == control.PodReady(pod) &&
		(old.DeletionTimestamp == nil) == (pod.DeletionTimestamp == nil) && equality.Semantic.DeepEqual(metav1.GetControllerOf(old), metav1.GetControllerOf(pod)) {
		return nil
	}
	var keys []control.Key
	for _, b := range c.budgets(ch.Object().GetNamespace()) {
		s := budget.Selector(b)
		if old != nil && s.Matches(labels.Set(old.Labels)) || pod != nil && s.Matches(labels.Set(pod.Labels)) {
			keys = append(keys, control.KeyOf(b))
		}
	}
	return keys
}

// scaleKeys returns the budgets of a namespace in which an owner of pods has another spec.
func (c *Controller) scaleKeys(ch control.Change) (keys []control.Key) {
	if ch.Old != nil && ch.New != nil && ch.Old.GetGeneration() == ch.New.GetGeneration() {
		return nil
	}
	for _, b := range c.budgets(ch.Object().GetNamespace()) {
		keys = append(keys, control.KeyOf(b))
	}
	return keys
}

func (c *Controller) budgets(namespace string) []*policyv1.PodDisruptionBudget {
	return control.List[*policyv1.PodDisruptionBudget](c.client, kube.PodDisruptionBudget, namespace)
}

func (c *Controller) reconcile(ctx context.Context, key control.Key) (time.Duration, error) {
	b, ok := control.Get[*policyv1.PodDisruptionBudget](c.client, kube.PodDisruptionBudget, key.Namespace, key.Name)
	if !ok || b.DeletionTimestamp != nil {
		c.gathered.Forget(key)
		return 0, nil
	}
	now := time.Now()
	if wait := c.gathered.Wait(b, now); wait > 0 {
		return wait, nil
	}
	selector := budget.Selector(b)
	var pods []*corev1.Pod
	all := control.List[*corev1.Pod](c.client, kube.Pod, b.Namespace)
	c.gathered.Done(b, len(all), now)
	for _, p := range all {
		if selector.Matches(labels.Set(p.Labels)) {
			pods = append(pods, p)
		}
	}
	f, err := count(b, pods, func(ref *metav1.OwnerReference, namespace string) (types.UID, int32, bool, error) {
		return c.scaleOf(ctx, ref, namespace)
	}, now)
	if err != nil {
		c.events.Event(b, corev1.EventTypeWarning, "CalculateExpectedPodCountFailed", "Failed to calculate the number of expected pods: %v", err)
		return 0, c.write(ctx, b, budget.Failed(b, err, now))
	}
	next := budget.Status(b, f.Count, now)
	if equality.Semantic.DeepEqual(next, b.Status) {
		return f.recheck, nil
	}
	c.report(b, pods, f)
	return f.recheck, c.write(ctx, b, next)
}

// report records what users should know of a new count.
func (c *Controller) report(b *policyv1.PodDisruptionBudget, pods []*corev1.Pod, f found) {
	if len(pods) == 0 {
		c.events.Event(b, corev1.EventTypeNormal, "NoPods", "No matching pods found")
	}
	if f.unmanaged {
		c.events.Event(b, corev1.EventTypeWarning, "UnmanagedPods", "Pods selected by this PodDisruptionBudget (selector: %s) were found to be unmanaged. "+
			"As a result, the status of the PDB cannot be calculated correctly, which may result in undefined behavior. "+
			"To account for these pods please set \".spec.minAvailable\" field of the PDB to an integer value.", budget.Selector(b))
	}
	for _, p := range f.overdue {
		c.events.Event(p, corev1.EventTypeWarning, "NotDeleted", "Pod was expected by PDB %s/%s to be deleted but it wasn't", b.Namespace, b.Name)
	}
}

func (c *Controller) write(ctx context.Context, b *policyv1.PodDisruptionBudget, s policyv1.PodDisruptionBudgetStatus) error {
	if equality.Semantic.DeepEqual(s, b.Status) {
		return nil
	}
	up := b.DeepCopy()
	up.Status = s
	_, err := c.client.Update(ctx, up, "status")
	return control.IgnoreNotFound(err)
}
