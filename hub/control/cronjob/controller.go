// Package cronjob makes a Job each time that a CronJob's schedule says so, and deletes old ones.
//
//	Jobs, clock ─► decide (pure) ─► delete old ones ─► delete what is replaced ─► make the one that is due ─► status
//
// Nothing polls: a CronJob comes up when one of its Jobs changes and when its next start is due. A start that was missed, because the hub
// was off, is made up for once, within startingDeadlineSeconds. A Job's name follows from the minute for which it was due, so a hub that
// stops between making it and writing the status makes none twice.
package cronjob

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
)

// longestWait bounds the time to the next look. A board without a battery learns the time after its start: the wall clock, by which a
// start is due, jumps, and timers do not.
const longestWait = 10 * time.Minute

// Config is what the controller needs. All fields but Log are required.
type Config struct {
	Client control.Client
	Events control.Events // as cronjob-controller
	Log    *slog.Logger
}

// Controller reconciles CronJobs. Its fields but seen are set by New and do not change.
type Controller struct {
	client control.Client
	events control.Events
	loop   *control.Loop

	mu   sync.Mutex
	seen map[control.Key]schedule // by CronJob, until it is gone; guarded by mu
}

// schedule is what a CronJob's schedule was when it was last looked at.
type schedule struct {
	uid        types.UID
	spec, zone string
}

// New returns a controller; Run starts it.
func New(cfg Config) *Controller {
	c := &Controller{client: cfg.Client, events: cfg.Events, seen: map[control.Key]schedule{}}
	c.loop = &control.Loop{
		Name: "cronjob", Client: cfg.Client, Log: cfg.Log, Workers: 2, Reconcile: c.reconcile,
		Sources: []control.Source{{GVK: kube.CronJob, Keys: control.OwnKeyUnlessStatus}, {GVK: kube.Job, Keys: owners}},
	}
	return c
}

// Run reconciles until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

// owners returns the CronJobs that a Job belongs to, or did.
func owners(ch control.Change) []control.Key {
	var keys []control.Key
	for _, obj := range []kube.Object{ch.Old, ch.New} {
		if obj == nil {
			continue
		}
		if ref := metav1.GetControllerOfNoCopy(obj); ref != nil && ref.Kind == kube.CronJob.Kind {
			keys = append(keys, control.Key{Namespace: obj.GetNamespace(), Name: ref.Name})
		}
	}
	return keys
}

func (c *Controller) reconcile(ctx context.Context, key control.Key) (time.Duration, error) {
	cj, ok := control.Get[*batchv1.CronJob](c.client, kube.CronJob, key.Namespace, key.Name)
	if !ok {
		c.forget(key)
		return 0, nil
	}
	var jobs []*batchv1.Job
	for _, j := range control.Index[*batchv1.Job](c.client, kube.Job, control.OwnerIndex, string(cj.UID)) {
		if control.OwnedBy(j, cj) {
			jobs = append(jobs, j)
		}
	}
	p := decide(cj, jobs, time.Now(), c.changed(key, cj))
	for _, e := range p.events {
		c.events.Event(cj, e.kind, e.reason, "%s", e.message)
	}
	err := c.carryOut(ctx, cj, &p)
	if !equality.Semantic.DeepEqual(p.status, cj.Status) {
		next := cj.DeepCopy()
		next.Status = p.status
		_, failed := c.client.Update(ctx, next, "status")
		err = control.JoinErrors(err, control.IgnoreNotFound(failed))
	}
	return min(p.after, longestWait), err
}

// carryOut deletes and makes the plan's Jobs, and takes them from, or adds them to, its status.
func (c *Controller) carryOut(ctx context.Context, cj *batchv1.CronJob, p *plan) error {
	var errs []error
	for _, j := range p.expired {
		errs = append(errs, c.remove(ctx, cj, p, j)) // one that cannot be deleted keeps nothing from being started
	}
	for _, j := range p.replace {
		if err := c.remove(ctx, cj, p, j); err != nil {
			return fmt.Errorf("could not replace job %s/%s: %w", j.Namespace, j.Name, err)
		}
	}
	if p.start != nil {
		errs = append(errs, c.begin(ctx, cj, p))
	}
	return control.JoinErrors(errs...)
}

// remove deletes a Job, and its pods in the background.
func (c *Controller) remove(ctx context.Context, cj *batchv1.CronJob, p *plan, j *batchv1.Job) error {
	background := metav1.DeletePropagationBackground
	err := c.client.Delete(ctx, kube.Job, j.Namespace, j.Name, metav1.DeleteOptions{
		PropagationPolicy: &background, Preconditions: &metav1.Preconditions{UID: &j.UID},
	})
	if control.IgnoreNotFound(err) != nil {
		c.events.Event(cj, corev1.EventTypeWarning, "FailedDelete", "Deleted job: %v", err)
		return err
	}
	drop(&p.status, j.UID)
	c.events.Event(cj, corev1.EventTypeNormal, "SuccessfulDelete", "Deleted job %v", j.Name)
	return nil
}

// begin makes the Job that is due. One of that name that is this CronJob's is the same Job, made by a hub that stopped before it wrote
// the status; any other belongs to another client, and is left alone.
func (c *Controller) begin(ctx context.Context, cj *batchv1.CronJob, p *plan) error {
	made, err := c.client.Create(ctx, p.start)
	switch {
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		p.after = 0
		return nil
	case apierrors.IsAlreadyExists(err):
		j, ok := control.Get[*batchv1.Job](c.client, kube.Job, p.start.Namespace, p.start.Name)
		if !ok {
			return err // it was made a moment ago: the next call sees it
		}
		if !metav1.IsControlledBy(j, cj) {
			return nil
		}
		made = j
	case err != nil:
		c.events.Event(cj, corev1.EventTypeWarning, "FailedCreate", "Error creating job: %v", err)
		return err
	default:
		c.events.Event(cj, corev1.EventTypeNormal, "SuccessfulCreate", "Created job %v", made.GetName())
	}
	p.status.LastScheduleTime = &p.at
	if j, ok := made.(*batchv1.Job); ok && finish(j) == "" {
		p.status.Active = append(p.status.Active, control.ReferenceTo(made))
	}
	return nil
}

// changed reports whether the schedule is another than at the last look. A new schedule counts from now on: it starts nothing for a
// time that it would have had before.
func (c *Controller) changed(key control.Key, cj *batchv1.CronJob) bool {
	now := schedule{uid: cj.UID, spec: cj.Spec.Schedule}
	if cj.Spec.TimeZone != nil {
		now.zone = *cj.Spec.TimeZone
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	was, known := c.seen[key]
	c.seen[key] = now
	return known && was.uid == now.uid && was != now
}

func (c *Controller) forget(key control.Key) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.seen, key)
}
