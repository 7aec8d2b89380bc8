package horizontalpodautoscaler

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	metrics "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
)

const (
	// workers is how many autoscalers are computed at a time: a metrics server that does not answer holds up a few at most.
	workers = 5
	// patience is how long the metrics of one autoscaler may take.
	patience = 30 * time.Second
	// statusEvery is how often a status is written of which only the current values have changed: each write is one of the disk.
	statusEvery = time.Minute
	// conflicts is how often a size is written again because another writer was faster.
	conflicts = 5
)

// Scales reads and sets how many replicas an object wants, through its scale subresource.
type Scales interface {
	// Scale returns the scale of the object that ref names. The error is a Status, or says that the kind is not served.
	Scale(ctx context.Context, namespace string, ref autoscalingv2.CrossVersionObjectReference) (*autoscalingv1.Scale, error)
	// Rescale sets spec.replicas if the object has still the resourceVersion of scale. The error is a Status.
	Rescale(ctx context.Context, ref autoscalingv2.CrossVersionObjectReference, scale *autoscalingv1.Scale) error
}

// Config is what the controller needs. All of it is required.
type Config struct {
	Client  control.Client
	Events  control.Events // as horizontal-pod-autoscaler
	Scales  Scales
	Metrics Metrics
	Log     *slog.Logger
}

// Controller reconciles HorizontalPodAutoscalers. Its fields do not change after New, states excepted.
type Controller struct {
	client  control.Client
	events  control.Events
	scales  Scales
	metrics Metrics
	log     *slog.Logger
	loop    *control.Loop

	mu     sync.Mutex
	states map[control.Key]*state // of the autoscalers that exist; guarded by mu
}

// state is what is kept of one autoscaler in memory. The worker that has its key owns it, selector excepted.
type state struct {
	autoscaler string // its UID
	history    history
	written    time.Time             // of the last status; zero before the first
	warned     map[warning]time.Time // Events of late, so that one that comes again and again costs the disk little
	selector   labels.Selector       // of the target's pods, nil before it is known; guarded by Controller.mu
}

// New returns a controller; Run starts it.
func New(cfg Config) *Controller {
	c := &Controller{client: cfg.Client, events: cfg.Events, scales: cfg.Scales, metrics: cfg.Metrics, log: cfg.Log, states: map[control.Key]*state{}}
	c.loop = &control.Loop{
		Name: "horizontalpodautoscaler", Client: cfg.Client, Log: cfg.Log, Workers: workers,
		Reconcile: c.reconcile,
		Sources:   []control.Source{{GVK: kube.HorizontalPodAutoscaler, Keys: unlessStatus}},
	}
	return c
}

// Run reconciles until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

// unlessStatus leaves out what the controller writes itself. An autoscaler has no generation to see that by.
func unlessStatus(ch control.Change) []control.Key {
	old, _ := ch.Old.(*autoscalingv2.HorizontalPodAutoscaler)
	now, _ := ch.New.(*autoscalingv2.HorizontalPodAutoscaler)
	if old != nil && now != nil && old.UID == now.UID && equality.Semantic.DeepEqual(old.Spec, now.Spec) &&
		equality.Semantic.DeepEqual(old.Annotations, now.Annotations) {
		return nil
	}
	return []control.Key{control.KeyOf(ch.Object())}
}

func (c *Controller) reconcile(ctx context.Context, key control.Key) (time.Duration, error) {
	a, ok := control.Get[*autoscalingv2.HorizontalPodAutoscaler](c.client, kube.HorizontalPodAutoscaler, key.Namespace, key.Name)
	if !ok || a.DeletionTimestamp != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.states, key)
		return 0, nil
	}
	s := c.state(key, a)
	scale, err := c.scales.Scale(ctx, a.Namespace, a.Spec.ScaleTargetRef)
	if err != nil {
		every, bad := period(a, false)
		return every, c.finish(ctx, s, a, noScale(a, time.Now(), err), bad)
	}
	pods, problem := c.pods(key, s, scale)
	every, bad := period(a, c.metered(pods))
	in := seen{autoscaler: a, scale: scale, pods: pods, unusable: problem, history: &s.history}
	if _, _, fixed := unmeasured(a, scale.Spec.Replicas); !fixed && problem == nil {
		in.readings = c.readAll(ctx, a, s.selector, pods)
	}
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	in.now = time.Now()
	d := decide(in)
	if d.rescale {
		c.rescale(ctx, a, s, scale, &d)
	}
	return every, c.finish(ctx, s, a, d, bad)
}

func (c *Controller) state(key control.Key, a *autoscalingv2.HorizontalPodAutoscaler) *state {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.states[key]
	if s == nil || s.autoscaler != string(a.UID) {
		s = &state{autoscaler: string(a.UID), warned: map[warning]time.Time{}}
		c.states[key] = s
	}
	return s
}

// pods returns those that the target's scale selects, or why its selector cannot be used.
func (c *Controller) pods(key control.Key, s *state, scale *autoscalingv1.Scale) (pods []*corev1.Pod, problem *unusable) {
	if scale.Status.Selector == "" {
		return nil, &unusable{warning{"SelectorRequired", "selector is required"}, note{"InvalidSelector", "the HPA target's scale is missing a selector"}}
	}
	selector, err := labels.Parse(scale.Status.Selector)
	if err != nil {
		text := fmt.Sprintf("couldn't convert selector into a corresponding internal selector object: %v", err)
		return nil, &unusable{warning{"InvalidSelector", text}, note{"InvalidSelector", text}}
	}
	for _, p := range control.List[*corev1.Pod](c.client, kube.Pod, key.Namespace) {
		if selector.Matches(labels.Set(p.Labels)) {
			pods = append(pods, p)
		}
	}
	if same := c.selecting(key, s, selector, pods); len(same) > 1 {
		text := fmt.Sprintf("pods by selector %v are controlled by multiple HPAs: [%s]", scale.Status.Selector, strings.Join(same, " "))
		return pods, &unusable{warning{"AmbiguousSelector", text}, note{"AmbiguousSelector", text}}
	}
	return pods, nil
}

// selecting keeps an autoscaler's selector, and returns the autoscalers that any of the pods belongs to.
func (c *Controller) selecting(key control.Key, s *state, selector labels.Selector, pods []*corev1.Pod) (names []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.selector = selector
	for other, o := range c.states {
		if other.Namespace != key.Namespace || o.selector == nil {
			continue
		}
		if slices.ContainsFunc(pods, func(p *corev1.Pod) bool { return o.selector.Matches(labels.Set(p.Labels)) }) {
			names = append(names, other.String())
		}
	}
	slices.Sort(names)
	return names
}

// readAll reads the metrics of an autoscaler. Nodes are asked once for all of them.
func (c *Controller) readAll(ctx context.Context, a *autoscalingv2.HorizontalPodAutoscaler, selector labels.Selector, pods []*corev1.Pod) []reading {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	used := sync.OnceValue(func() []*metrics.PodMetrics { return c.metrics.Pods(ctx, pods) })
	out := make([]reading, len(a.Spec.Metrics))
	for i := range a.Spec.Metrics {
		out[i] = c.read(ctx, a.Namespace, &a.Spec.Metrics[i], selector, pods, used)
	}
	return out
}

// rescale gives the target its new size, and records in d whether it has it.
func (c *Controller) rescale(ctx context.Context, a *autoscalingv2.HorizontalPodAutoscaler, s *state, scale *autoscalingv1.Scale, d *decision) {
	from, ref := scale.Spec.Replicas, a.Spec.ScaleTargetRef
	var err error
	for range conflicts {
		next := scale.DeepCopy()
		next.Spec.Replicas = d.replicas
		if err = c.scales.Rescale(ctx, ref, next); !apierrors.IsConflict(err) {
			break
		}
		if latest, failed := c.scales.Scale(ctx, a.Namespace, ref); failed == nil {
			scale = latest
		}
	}
	now := time.Now()
	if err != nil {
		d.refused(now, &a.Status, err)
		return
	}
	d.done(now)
	s.history.scaled(now, a.Spec.Behavior, from, d.replicas)
	c.events.Event(a, corev1.EventTypeNormal, "SuccessfulRescale", "New size: %d; reason: %s", d.replicas, d.why)
	c.log.Info("rescaled", "autoscaler", control.KeyOf(a), "target", ref.Kind+"/"+ref.Name, "from", from, "to", d.replicas, "reason", d.why)
}

// finish reports and writes what a decision says beside the size.
func (c *Controller) finish(ctx context.Context, s *state, a *autoscalingv2.HorizontalPodAutoscaler, d decision, more []warning) error {
	now := time.Now()
	c.warn(s, a, now, append(d.warnings, more...))
	if equality.Semantic.DeepEqual(d.status, a.Status) {
		return nil
	}
	if now.Sub(s.written) < statusEvery {
		rest := *a.Status.DeepCopy()
		rest.CurrentMetrics = d.status.CurrentMetrics
		if equality.Semantic.DeepEqual(d.status, rest) {
			return nil
		}
	}
	up := a.DeepCopy()
	up.Status = d.status
	_, err := c.client.Update(ctx, up, "status")
	if err == nil {
		s.written = now
	}
	return control.IgnoreNotFound(err)
}

// warnAgain is when a warning that goes on is recorded again.
const warnAgain = 5 * time.Minute

func (c *Controller) warn(s *state, a *autoscalingv2.HorizontalPodAutoscaler, now time.Time, list []warning) {
	for w, at := range s.warned {
		if now.Sub(at) >= warnAgain {
			delete(s.warned, w)
		}
	}
	for _, w := range list {
		if _, ok := s.warned[w]; !ok {
			s.warned[w] = now
			c.events.Event(a, corev1.EventTypeWarning, w.reason, "%s", w.message)
		}
	}
}
