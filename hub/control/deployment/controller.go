// Package deployment rolls Deployments out: it keeps one ReplicaSet for each version of the pod template, and moves replicas from
// the old ones to the current one step by step. Each step is decided from what is there, not from the step before.
//
// decide is the pure part; the driver reads the cache, writes all of a step in one transaction, and reports in Events what was
// scaled. Pods on dark nodes are deferred: see docs/controllers.md.
package deployment

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/control/podset"
	"petrel.dev/petrel/internal/kube"
)

// Config is what the controller needs.
type Config struct {
	Client control.Client
	Events control.Events // as deployment-controller
	Images podset.Images  // nil: images are not fetched ahead
	Log    *slog.Logger
}

// Controller reconciles Deployments. Its fields are set by New and never nil.
type Controller struct {
	client  control.Client
	events  control.Events
	loop    *control.Loop
	orphans *control.Orphans
	images  podset.Images // may be nil

	mu   sync.Mutex
	dark map[string]bool // the dark nodes, by name; guarded by mu
	// stagedOnes are the Deployments whose rollouts are staged; guarded by mu.
	stagedOnes map[control.Key]bool
}

// New returns a controller; Run starts it.
func New(cfg Config) *Controller {
	c := &Controller{client: cfg.Client, events: cfg.Events, images: cfg.Images, orphans: control.NewOrphans(cfg.Client, kube.ReplicaSet), dark: map[string]bool{}, stagedOnes: map[control.Key]bool{}}
	c.loop = &control.Loop{
		Name: "deployment", Client: cfg.Client, Log: cfg.Log, Workers: 4,
		Reconcile: c.reconcile,
		Sources: []control.Source{
			{GVK: kube.Deployment, Keys: control.OwnKeyUnlessStatus},
			{GVK: kube.ReplicaSet, Keys: c.replicaSetKeys},
			{GVK: kube.Node, Keys: c.nodeKeys},
			{GVK: kube.Pod, Keys: c.podKeys},
		},
	}
	return c
}

// Run reconciles until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

// replicaSetKeys returns the Deployments that a ReplicaSet belongs to, has belonged to, or could belong to.
func (c *Controller) replicaSetKeys(ch control.Change) []control.Key {
	c.orphans.Saw(ch)
	var keys []control.Key
	for _, obj := range []kube.Object{ch.Old, ch.New} {
		if obj == nil {
			continue
		}
		if ref := metav1.GetControllerOfNoCopy(obj); ref != nil {
			if ref.Kind == kube.Deployment.Kind {
				keys = append(keys, control.Key{Namespace: obj.GetNamespace(), Name: ref.Name})
			}
			continue
		}
		for _, d := range control.List[*appsv1.Deployment](c.client, kube.Deployment, obj.GetNamespace()) {
			if s, err := metav1.LabelSelectorAsSelector(d.Spec.Selector); err == nil && !s.Empty() && s.Matches(labels.Set(obj.GetLabels())) {
				keys = append(keys, control.KeyOf(d))
			}
		}
	}
	return keys
}

// nodeKeys returns the Deployments that have pods on a node which goes dark or comes back.
func (c *Controller) nodeKeys(ch control.Change) []control.Key {
	name := ch.Object().GetName()
	is := ch.New != nil && control.NodeDark(ch.New.(*corev1.Node))
	c.mu.Lock()
	was := c.dark[name]
	if is {
		c.dark[name] = true
	} else {
		delete(c.dark, name)
	}
	c.mu.Unlock()
	if is == was {
		return nil
	}
	seen := map[control.Key]bool{}
	var keys []control.Key
	for _, pod := range c.client.Index(kube.Pod, control.NodeIndex, name) {
		ref := metav1.GetControllerOfNoCopy(pod)
		if ref == nil || ref.Kind != kube.ReplicaSet.Kind {
			continue
		}
		rs, ok := c.client.Get(kube.ReplicaSet, pod.GetNamespace(), ref.Name)
		if !ok {
			continue
		}
		if ref := metav1.GetControllerOfNoCopy(rs); ref != nil && ref.Kind == kube.Deployment.Kind {
			k := control.Key{Namespace: rs.GetNamespace(), Name: ref.Name}
			if !seen[k] {
				seen[k] = true
				keys = append(keys, k)
			}
		}
	}
	return keys
}

func (c *Controller) reconcile(ctx context.Context, key control.Key) (time.Duration, error) {
	d, ok := control.Get[*appsv1.Deployment](c.client, kube.Deployment, key.Namespace, key.Name)
	if !ok {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.stagedOnes, key)
		return 0, nil
	}
	if control.NamespaceEnding(c.client, d.Namespace) {
		return 0, nil
	}
	selector, err := metav1.LabelSelectorAsSelector(d.Spec.Selector)
	if err != nil {
		return 0, fmt.Errorf("deployment %s: selector: %w", key, err)
	}
	if selector.Empty() {
		return 0, c.selectsAll(ctx, d)
	}
	mine, err := control.Claim(ctx, c.client, d, kube.Deployment, selector,
		c.client.Index(kube.ReplicaSet, control.OwnerIndex, string(d.UID)), c.orphans.In(d.Namespace))
	if err != nil {
		return 0, err
	}
	st := state{d: d, now: time.Now()}
	for _, obj := range mine {
		st.rss = append(st.rss, obj.(*appsv1.ReplicaSet))
	}
	c.lookAtPods(&st)
	c.readStage(&st)
	st.fetching = !c.lookAtImages(&st)
	return c.apply(ctx, decide(st), d)
}

// lookAtPods counts pods on dark nodes, and for Recreate finds old ones that have not ended. Everything else is in the status of
// the ReplicaSets.
func (c *Controller) lookAtPods(st *state) {
	c.mu.Lock()
	anyDark := len(c.dark) > 0
	c.mu.Unlock()
	recreate := st.d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType
	if !anyDark && !recreate {
		return
	}
	st.dark, st.oldPods = map[types.UID]int64{}, map[types.UID]bool{}
	for _, rs := range st.rss {
		for _, p := range control.Index[*corev1.Pod](c.client, kube.Pod, control.OwnerIndex, string(rs.UID)) {
			switch dark := control.PodDark(c.client, p); {
			case dark && control.PodActive(p):
				st.dark[rs.UID]++
			case !dark && !control.PodFinished(p):
				st.oldPods[rs.UID] = true
			}
		}
	}
}

// selectsAll warns of an empty selector, which would adopt every ReplicaSet of the namespace, and does nothing else for it.
func (c *Controller) selectsAll(ctx context.Context, d *appsv1.Deployment) error {
	c.events.Event(d, corev1.EventTypeWarning, "SelectingAll", "This deployment is selecting all pods. A non-empty selector is required.")
	if d.Status.ObservedGeneration >= d.Generation {
		return nil
	}
	s := *d.Status.DeepCopy()
	s.ObservedGeneration = d.Generation
	return c.writeStatus(ctx, d, s)
}

// apply writes what decide wants. What is not written because an earlier write failed is wanted again in the next round.
func (c *Controller) apply(ctx context.Context, p actions, d *appsv1.Deployment) (time.Duration, error) {
	if p.create != nil {
		created, err := c.create(ctx, &p, d)
		if err != nil || created == nil {
			return 0, err
		}
		p.revision = created.Annotations[revisionAnnotation]
	}
	if up := p.written(d); up != nil {
		got, err := c.client.Update(ctx, up, "")
		if err != nil {
			return 0, control.IgnoreNotFound(err)
		}
		d = got.(*appsv1.Deployment)
		p.status.ObservedGeneration = d.Generation
	}
	for _, e := range p.stageEvents {
		c.events.Event(d, e.Type, e.Reason, "%s", e.Message)
	}
	if p.template != nil {
		return 0, nil // the rest is of the template that was before; the change queues the key again
	}
	var writes []control.Write
	for _, ch := range p.update {
		writes = append(writes, control.Write{Object: ch.new, Old: ch.old})
	}
	if !equality.Semantic.DeepEqual(d.Status, p.status) {
		up := d.DeepCopy()
		up.Status = p.status
		writes = append(writes, control.Write{Object: up, Old: d, Subresource: "status"})
	}
	if len(writes) > 0 {
		if err := c.client.Commit(ctx, writes); err != nil {
			return 0, control.IgnoreNotFound(err)
		}
	}
	for _, e := range p.events {
		c.events.Event(d, corev1.EventTypeNormal, "ScalingReplicaSet", "%s", e)
	}
	for _, rs := range p.remove {
		err := c.client.Delete(ctx, kube.ReplicaSet, rs.Namespace, rs.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &rs.UID}})
		if control.IgnoreNotFound(err) != nil {
			return 0, err
		}
	}
	return p.after, nil
}

// written returns the Deployment with what its controller keeps outside the status, nil when it is so already.
func (p *actions) written(d *appsv1.Deployment) *appsv1.Deployment {
	up := d.DeepCopy()
	if up.Annotations == nil {
		up.Annotations = map[string]string{}
	}
	if p.revision != "" {
		up.Annotations[revisionAnnotation] = p.revision
	}
	if p.stage != "" {
		up.Annotations[kube.RolloutState] = p.stage
	}
	if p.template != nil {
		up.Spec.Template = *p.template
	}
	if equality.Semantic.DeepEqual(up.Annotations, d.Annotations) && p.template == nil {
		return nil
	}
	return up
}

// create makes the current ReplicaSet and records it in the status that is written. It returns nil without an error when the ReplicaSet
// exists and the cache does not show it yet.
func (c *Controller) create(ctx context.Context, p *actions, d *appsv1.Deployment) (*appsv1.ReplicaSet, error) {
	obj, err := c.client.Create(ctx, p.create)
	switch {
	case err == nil:
		rs := obj.(*appsv1.ReplicaSet)
		if n := replicas(rs.Spec.Replicas); n > 0 {
			c.events.Event(d, corev1.EventTypeNormal, "ScalingReplicaSet", "%s", scaledText(rs.Name, 0, n))
		}
		if hasDeadline(d) {
			set(&p.status, time.Now(), appsv1.DeploymentProgressing, corev1.ConditionTrue, reasonCreated, fmt.Sprintf("Created new replica set %q", rs.Name))
			p.after = kube.Seconds(*d.Spec.ProgressDeadlineSeconds)
		}
		return rs, nil
	case apierrors.IsAlreadyExists(err):
		there, ok := control.Get[*appsv1.ReplicaSet](c.client, kube.ReplicaSet, d.Namespace, p.create.Name)
		if !ok || control.OwnedBy(there, d) && sameTemplate(&there.Spec.Template, &d.Spec.Template) {
			return nil, nil // made before; its change will queue the key again
		}
		n := int32(1)
		if d.Status.CollisionCount != nil {
			n = *d.Status.CollisionCount + 1
		}
		p.status.CollisionCount = &n
		return nil, control.JoinErrors(c.writeStatus(ctx, d, p.status),
			fmt.Errorf("replica set %s belongs to another owner, or has another template with the same hash: %w", p.create.Name, err))
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return nil, nil
	}
	msg := fmt.Sprintf("Failed to create new replica set %q: %v", p.create.Name, err)
	c.events.Event(d, corev1.EventTypeWarning, reasonCreateError, "%s", msg)
	if hasDeadline(d) {
		set(&p.status, time.Now(), appsv1.DeploymentProgressing, corev1.ConditionFalse, reasonCreateError, msg)
	}
	return nil, control.JoinErrors(err, c.writeStatus(ctx, d, p.status))
}

// writeStatus writes the status when it differs.
func (c *Controller) writeStatus(ctx context.Context, d *appsv1.Deployment, s appsv1.DeploymentStatus) error {
	if equality.Semantic.DeepEqual(d.Status, s) {
		return nil
	}
	up := d.DeepCopy()
	up.Status = s
	_, err := c.client.Update(ctx, up, "status")
	return err
}
