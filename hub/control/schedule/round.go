package schedule

import (
	"context"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/control/volumebinder"
	"petrel.dev/petrel/internal/contain"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/sched"
)

// These bound how often a pod is reported as unschedulable: its condition when the reason changed, its Event also when not.
const (
	rewriteEvery = 30 * time.Second
	reportEvery  = 10 * time.Minute
)

// outcome is what a round decided about one pod, and what it wants to write.
type outcome struct {
	*entry
	decision sched.Decision
	victims  []*sched.Pod           // that must go for it, those aside that are leaving
	preempts bool                   // it has been promised room that victims leave
	writes   []control.Write        // in one commit
	bindings []volumebinder.Binding // of claims that get their volume with the pod
	failed   bool                   // it could not be written
}

// round decides about each pod of the batch and commits all of it together. Then the victims of those that preempt are evicted, and
// pods that wait like those that have got something are tried next.
func (s *Scheduler) round(ctx context.Context, batch []*entry) {
	now := time.Now()
	refused, volumes := map[string]*refusal{}, promised{}
	s.budgets = nil
	outcomes := make([]*outcome, 0, len(batch))
	for _, e := range batch {
		if volumes.has(e.prepared) {
			s.queue.put(e, ready)
			continue
		}
		o := &outcome{entry: e}
		err := contain.Do(s.cfg.Log, site, control.KeyOf(e.pod).String(), func() error {
			r := s.decide(e, refused)
			if o.decision = r.decision; len(o.decision.Claims) > 0 {
				if why := s.bindVolumes(o); why != "" {
					o.decision = sched.Decision{Nodes: o.decision.Nodes, Unready: why, Cures: sched.Volumes}
				}
				volumes.add(o)
			}
			switch {
			case o.decision.Fits():
				s.assume(o, now)
			case r.decision.Fits(): // it waits for its volume, not for room: that is kept, because the volume will be on this node only
				s.nominate(e, r.decision.Node)
				s.park(o, "", now)
			default:
				s.park(o, s.preempt(o, r), now)
			}
			return nil
		})
		if err != nil {
			s.unassume(o)
			s.retry(o, err)
			continue
		}
		outcomes = append(outcomes, o)
	}
	s.commit(ctx, slices.DeleteFunc(slices.Clone(outcomes), func(o *outcome) bool { return len(o.writes) == 0 }))
	s.evict(ctx, outcomes)
	got := map[string]int{}
	for _, o := range outcomes {
		s.cfg.Metrics.attempt(o)
		if len(s.queue.groups) > 0 && (o.decision.Fits() || o.preempts) {
			got[o.classOf()]++
		}
	}
	for class, n := range got {
		s.queue.follow(class, n)
	}
}

// refusal is a decision, and what was found about preemption if it is a refusal that equal pods share.
type refusal struct {
	decision sched.Decision
	hopeless string // why preemption does not help; "" when it may, or is not known yet
}

// decide calls sched. Pods of one class share a refusal within a round: room only shrinks during it, so when one of a thousand
// replicas fits nowhere, the others need not be compared with every node. One to which room is promised is not like the others.
func (s *Scheduler) decide(e *entry, refused map[string]*refusal) *refusal {
	if len(refused) > 0 && e.nominated == "" {
		if r := refused[e.classOf()]; r != nil {
			return r
		}
	}
	r := &refusal{decision: s.snap.Schedule(e.prepared)}
	if !r.decision.Fits() && e.nominated == "" && e.prepared.Independent() {
		refused[e.classOf()] = r
	}
	return r
}

// assume puts the pod on its node in the snapshot and marks the binding for writing.
func (s *Scheduler) assume(o *outcome, now time.Time) {
	bound := o.pod.DeepCopy()
	bound.Spec.NodeName = o.decision.Node
	setScheduled(bound, corev1.PodCondition{Type: corev1.PodScheduled, Status: corev1.ConditionTrue}, now)
	s.snap.SetPod(sched.NewPod(bound))
	s.assumed[bound.UID] = true
	o.writes = append(o.writes, control.Write{Object: bound, Old: o.pod, Subresource: "binding"})
}

// park makes the pod wait for a change of the fleet. A changed condition or nomination is marked for writing; when only the message
// is new and the last write is less than rewriteEvery ago, the pod is tried again at that time.
func (s *Scheduler) park(o *outcome, preemption string, now time.Time) {
	flushed := o.flushed
	o.cures = o.decision.Cures
	s.queue.failed(o.entry, now)
	s.queue.park(o.entry, now)
	message := o.decision.Message()
	if preemption != "" {
		message += " " + preemption
	}
	have := control.PodCondition(o.pod, corev1.PodScheduled)
	same := have != nil && have.Status == corev1.ConditionFalse && have.Reason == corev1.PodReasonUnschedulable && have.Message == message
	nominated := o.pod.Status.NominatedNodeName == o.nominated
	if same && nominated {
		if !flushed {
			s.report(o.entry, message, now)
		}
		return
	}
	if soon := o.wrote.Add(rewriteEvery); nominated && !o.wrote.IsZero() && soon.After(now) {
		s.queue.sooner(o.entry, soon)
		return
	}
	failed := o.pod.DeepCopy()
	failed.Status.NominatedNodeName = o.nominated
	setScheduled(failed, corev1.PodCondition{Type: corev1.PodScheduled, Status: corev1.ConditionFalse,
		Reason: corev1.PodReasonUnschedulable, Message: message}, now)
	o.writes = append(o.writes, control.Write{Object: failed, Old: o.pod, Subresource: "status"})
	o.wrote = now
	s.report(o.entry, message, now)
}

// report emits the Event about a pod that fits nowhere, unless the same message was emitted less than reportEvery ago.
func (s *Scheduler) report(e *entry, message string, now time.Time) {
	if e.reported == message && now.Sub(e.reportedAt) < reportEvery {
		return
	}
	e.reported, e.reportedAt = message, now
	s.cfg.Events.Event(e.pod, corev1.EventTypeWarning, "FailedScheduling", "%s", message)
}

func setScheduled(pod *corev1.Pod, c corev1.PodCondition, now time.Time) {
	c.ObservedGeneration = pod.Generation
	c.LastTransitionTime = metav1.NewTime(now)
	pod.Status.Conditions = kube.SetCondition(pod.Status.Conditions, c)
}

// commit writes all outcomes in one transaction. When that fails, usually because one of the pods has changed, each gets a
// transaction of its own, so that only those that cannot be written are retried.
func (s *Scheduler) commit(ctx context.Context, outcomes []*outcome) {
	if len(outcomes) == 0 {
		return
	}
	writes := make([]control.Write, 0, len(outcomes))
	for _, o := range outcomes {
		writes = append(writes, o.writes...)
	}
	err := s.write(ctx, "round", writes)
	alone := err != nil && len(outcomes) > 1 && ctx.Err() == nil
	for _, o := range outcomes {
		if alone {
			err = s.write(ctx, control.KeyOf(o.pod).String(), o.writes)
		}
		s.settle(o, err)
	}
}

// write commits; a panic on the way is the writes' error.
func (s *Scheduler) write(ctx context.Context, key string, writes []control.Write) error {
	return contain.Do(s.cfg.Log, site+"/write", key, func() error { return s.cfg.Client.Commit(ctx, writes) })
}

// unassume undoes assume.
func (s *Scheduler) unassume(o *outcome) {
	delete(s.assumed, o.pod.UID)
	if p, ok := s.snap.Pod(o.pod.UID); ok {
		s.snap.RemovePod(o.pod.UID)
		s.left(p)
	}
	s.unbindVolumes(o)
	s.snap.Nominate(o.prepared, o.nominated)
}

// settle acts on the result of one outcome's write.
func (s *Scheduler) settle(o *outcome, err error) {
	binding := o.decision.Fits()
	switch {
	case err == nil && binding:
		s.drop(o.pod.UID)
		s.changes.add(sched.PodCame, o.decision.Node)
		s.provisioned(o)
		s.cfg.Events.Event(o.pod, corev1.EventTypeNormal, "Scheduled", "Successfully assigned %s/%s to %s", o.pod.Namespace, o.pod.Name, o.decision.Node)
	case err == nil:
	case binding:
		s.unassume(o)
		s.retry(o, err)
	default:
		o.wrote = time.Time{}
		s.nominate(o.entry, o.pod.Status.NominatedNodeName)
		s.retry(o, err)
	}
}

// retry queues a pod whose write failed. A conflict is not logged: the feed is about to deliver the other writer's change.
func (s *Scheduler) retry(o *outcome, err error) {
	o.failed = true
	if apierrors.IsNotFound(err) {
		s.drop(o.pod.UID)
		return
	}
	if !apierrors.IsConflict(err) {
		s.cfg.Log.Warn("scheduling result could not be written", "pod", control.KeyOf(o.pod), "node", o.decision.Node, "error", err)
	}
	if s.queue.entries[o.pod.UID] == o.entry {
		s.queue.failed(o.entry, time.Now())
		s.queue.put(o.entry, tried)
		s.queue.behind(o.entry)
		s.queue.delay(o.entry, o.due)
	}
}
