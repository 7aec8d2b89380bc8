// Package job runs pods of a Job to completion, and counts each end exactly once.
//
//	pods, their ends ─► decide (pure) ─► drop, create ─► one transaction: counters + conditions + finalizers of what they count ─► stop
//
// Every pod of a Job has the finalizer batch.kubernetes.io/job-tracking until its end is counted: a pod that is deleted meanwhile
// stays, with its result. The counters and the removal of the finalizers are one transaction, so that whatever happens
// in between, a pod with the finalizer is not counted and one without it is. Kubernetes, which has no transactions over objects, lists
// such pods in status.uncountedTerminatedPods first; what another controller has left there is counted by the same rule.
//
// A Job whose spec.managedBy names another controller is not touched. Pods that no Job will count any more (its Job is gone or has
// finished, or they were released) lose the finalizer by a loop of their own (release.go).
package job

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"golang.org/x/sync/errgroup"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/control/podset"
	"petrel.dev/petrel/internal/kube"
)

// Config is what the controller needs. All fields but Log are required.
type Config struct {
	Client control.Client
	Events control.Events // as job-controller
	Log    *slog.Logger
}

// Controller reconciles Jobs. Its fields but memory are set by New and do not change.
type Controller struct {
	client  control.Client
	events  control.Events
	pods    *podset.Pods[*batchv1.Job]
	loop    *control.Loop
	release *control.Loop

	mu     sync.Mutex
	memory map[control.Key]memory // by Job, until it is finished or gone; guarded by mu
}

// memory is what is kept about a Job between syncs.
type memory struct {
	backoff backoff
	synced  time.Time // the last sync; zero before the first
	pods    int       // how many it had then
}

// New returns a controller; Run starts it.
func New(cfg Config) *Controller {
	c := &Controller{client: cfg.Client, events: cfg.Events, memory: map[control.Key]memory{}}
	c.pods = podset.New(podset.Config[*batchv1.Job]{
		Client: cfg.Client, Events: cfg.Events, Kind: kube.Job, Finalizer: batchv1.JobTrackingFinalizer,
		Selector: func(j *batchv1.Job) *metav1.LabelSelector { return j.Spec.Selector },
	})
	c.loop = &control.Loop{
		Name: "job", Client: cfg.Client, Log: cfg.Log, Workers: 4, Reconcile: c.reconcile,
		Sources: []control.Source{{GVK: kube.Job}, {GVK: kube.Pod, Keys: c.pods.Keys}},
	}
	c.release = &control.Loop{
		Name: "job-release", Client: cfg.Client, Log: cfg.Log, Reconcile: c.releasePod,
		Sources: []control.Source{{GVK: kube.Job, Keys: c.podsOfEnded}, {GVK: kube.Pod, Keys: c.podToRelease}},
	}
	return c
}

// Run reconciles until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return c.loop.Run(ctx) })
	g.Go(func() error { return c.release.Run(ctx) })
	return g.Wait()
}

func (c *Controller) reconcile(ctx context.Context, key control.Key) (time.Duration, error) {
	j, ok := control.Get[*batchv1.Job](c.client, kube.Job, key.Namespace, key.Name)
	if !ok || finished(j) || managedElsewhere(j) {
		c.forget(key)
		return 0, nil
	}
	now, mem := time.Now(), c.remembered(key)
	if mem.backoff.uid == j.UID && j.DeletionTimestamp == nil {
		if wait := gather(mem.pods) - now.Sub(mem.synced); wait > 0 {
			return wait, nil
		}
	}
	mine, err := c.pods.Claim(ctx, j)
	if err != nil {
		return 0, err
	}
	if mem.backoff.uid != j.UID {
		mem.backoff = counted(j, mine.Ended)
	}
	mem.synced, mem.pods = now, len(mine.Active)+len(mine.Ending)+len(mine.Ended)
	p := decide(view{job: j, pods: mine, backoff: mem.backoff, now: now, frozen: control.NamespaceEnding(c.client, j.Namespace)})
	if err := c.drop(ctx, j, p.drop); err != nil {
		return 0, err
	}
	failure := c.grow(ctx, j, &p, now)
	wrote, err := c.count(ctx, j, &p)
	if err != nil {
		return 0, control.JoinErrors(failure, err)
	}
	if wrote {
		mem.backoff = p.memory
	}
	c.remember(key, mem)
	failure = control.JoinErrors(failure, c.pods.Delete(ctx, j, p.stop))
	if again := c.pods.RefusedFor(j, now); again > 0 && failure != nil {
		if p.after > 0 {
			again = min(again, p.after)
		}
		return again, nil // the Event reports it
	}
	return p.after, failure
}

// gather returns how long the changes of a Job's pods are gathered into one sync: a millisecond for each pod, because a sync reads all
// of them, and a second at most.
func gather(pods int) time.Duration { return min(time.Second, time.Duration(pods)*time.Millisecond) }

// drop deletes pods that are too many. They lose the finalizer first, all at once: their end is not counted.
func (c *Controller) drop(ctx context.Context, j *batchv1.Job, pods []*corev1.Pod) error {
	if len(pods) == 0 {
		return nil
	}
	if err := c.client.Commit(ctx, freed(pods)); err != nil {
		return err
	}
	return c.pods.Delete(ctx, j, pods)
}

// grow makes the plan's pods. After an error the status does not count any of them: those that were made queue the Job again.
func (c *Controller) grow(ctx context.Context, j *batchv1.Job, p *plan, now time.Time) error {
	if len(p.create) == 0 {
		return nil
	}
	err := c.pods.Create(ctx, j, len(p.create), now, func(i int) *corev1.Pod { return p.create[i] })
	if err != nil {
		p.status.Active -= int32(len(p.create))
	}
	return err
}

// count writes the status and takes the finalizer of the pods that it counts, in one transaction, and reports whether there was
// anything to write.
func (c *Controller) count(ctx context.Context, j *batchv1.Job, p *plan) (wrote bool, err error) {
	writes := freed(p.count)
	if !equality.Semantic.DeepEqual(p.status, j.Status) {
		next := j.DeepCopy()
		next.Status = p.status
		writes = append([]control.Write{{Object: next, Old: j, Subresource: "status"}}, writes...)
	}
	if len(writes) == 0 {
		return false, nil
	}
	if err := c.client.Commit(ctx, writes); err != nil {
		return false, err
	}
	for _, e := range p.events {
		c.events.Event(j, e.kind, e.reason, "%s", e.message)
	}
	return true, nil
}

// freed returns the writes that take the finalizer from pods that have it.
func freed(pods []*corev1.Pod) []control.Write {
	var out []control.Write
	for _, p := range pods {
		if tracked(p) {
			out = append(out, control.Write{Object: withoutFinalizer(p), Old: p})
		}
	}
	return out
}

func withoutFinalizer(p *corev1.Pod) *corev1.Pod {
	free := p.DeepCopy()
	free.Finalizers = slices.DeleteFunc(free.Finalizers, func(f string) bool { return f == batchv1.JobTrackingFinalizer })
	return free
}

// counted returns the back-off of a Job from those of its pods that are counted already: the first sync after a start.
func counted(j *batchv1.Job, ended []*corev1.Pod) backoff {
	var succeeded, failed []*corev1.Pod
	for _, p := range ended {
		switch {
		case tracked(p):
		case p.Status.Phase == corev1.PodSucceeded:
			succeeded = append(succeeded, p)
		default:
			failed = append(failed, p)
		}
	}
	return backoff{uid: j.UID}.with(succeeded, failed)
}

// managedElsewhere reports whether another controller is responsible for the Job.
func managedElsewhere(j *batchv1.Job) bool {
	return j.Spec.ManagedBy != nil && *j.Spec.ManagedBy != batchv1.JobControllerName
}

func (c *Controller) remembered(key control.Key) memory {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.memory[key]
}

func (c *Controller) remember(key control.Key, m memory) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.memory[key] = m
}

func (c *Controller) forget(key control.Key) {
	c.pods.Forget(key)
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.memory, key)
}
