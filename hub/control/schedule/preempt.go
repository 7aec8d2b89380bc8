package schedule

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/control/disruption/budget"
	"petrel.dev/petrel/internal/contain"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/sched"
)

// nominate promises room on a node to a pod that waits; "" takes the promise back. park writes it into the status.
func (s *Scheduler) nominate(e *entry, node string) {
	old := e.nominated
	e.nominated = node
	s.snap.Nominate(e.prepared, node)
	if old != "" && old != node {
		s.changes.add(sched.PodLeft, old)
	}
}

// preempt looks for pods to evict for one that fits nowhere, promises it the room, and returns why there is none to be had.
// Promises of that room to less important pods end, and they are tried again.
func (s *Scheduler) preempt(o *outcome, r *refusal) (why string) {
	if r.hopeless != "" {
		return r.hopeless
	}
	s.cfg.Metrics.preemptions.Inc()
	if s.budgets == nil {
		s.budgets = budgetsOf(s.cfg.Client)
	}
	p := s.snap.Preempt(o.prepared, s.budgets.list)
	switch {
	case p.Waits:
		return p.Message()
	case p.Node == "":
		s.nominate(o.entry, "")
		r.hopeless = p.Message()
		return r.hopeless
	}
	for _, uid := range s.snap.NominatedBelow(o.prepared, p.Node) {
		if other := s.queue.entries[uid]; other != nil {
			s.nominate(other, "")
			if other.place != tried {
				s.queue.bring(other)
			}
		}
	}
	s.nominate(o.entry, p.Node)
	o.preempts = true
	o.victims = slices.DeleteFunc(slices.Clone(p.Victims), func(v *sched.Pod) bool { return v.Object.DeletionTimestamp != nil })
	s.budgets.spend(o.victims)
	return ""
}

// evict deletes the victims of outcomes that were written: first the reason goes into their status, then they get their grace period. A
// pod whose victims could not be evicted is tried again.
func (s *Scheduler) evict(ctx context.Context, outcomes []*outcome) {
	evicted := false
	for _, o := range outcomes {
		if o.failed || len(o.victims) == 0 {
			continue
		}
		if !evicted { // the bindings of this round, and of the one before, must be seen
			evicted = true
			if err := s.cfg.Client.CatchUp(ctx); err != nil {
				return
			}
		}
		s.cfg.Metrics.preempted(len(o.victims))
		if err := control.InParallel(len(o.victims), func(i int) error { return s.evictOne(ctx, o, o.victims[i].Object) }); err != nil && ctx.Err() == nil {
			s.retry(o, err)
		}
	}
}

// evictTries bounds how often the condition is written again because another writer of the status was faster.
const evictTries = 5

// evictOne evicts one victim. One that is gone, or leaving already, needs nothing more.
func (s *Scheduler) evictOne(ctx context.Context, o *outcome, victim *corev1.Pod) error {
	return contain.Do(s.cfg.Log, site+"/evict", control.KeyOf(victim).String(), func() error {
		for try := 1; ; try++ {
			now, ok := control.Get[*corev1.Pod](s.cfg.Client, kube.Pod, victim.Namespace, victim.Name)
			if !ok || now.UID != victim.UID || now.DeletionTimestamp != nil || control.PodFinished(now) {
				return nil
			}
			deleted, err := control.Evict(ctx, s.cfg.Client, now, corev1.PodReasonPreemptionByScheduler,
				corev1.DefaultSchedulerName+": preempting to accommodate a higher priority pod")
			if deleted {
				s.cfg.Events.Event(victim, corev1.EventTypeNormal, "Preempted", "Preempted by pod %s on node %s", o.pod.UID, o.nominated)
			}
			if !apierrors.IsConflict(err) || try == evictTries {
				return err
			}
			if err := s.cfg.Client.CatchUp(ctx); err != nil {
				return err
			}
		}
	})
}

// budgets are the PodDisruptionBudgets, with what this round has spent of them.
type budgets struct{ list []sched.Budget }

// budgetsOf reads the budgets. Who counts against them is what evictions would ask: pods that are not healthy may go, and so may
// those whose eviction is spent already.
func budgetsOf(c control.Reader) *budgets {
	b := &budgets{}
	for _, pdb := range control.List[*policyv1.PodDisruptionBudget](c, kube.PodDisruptionBudget, "") {
		covers := budget.Selector(pdb)
		b.list = append(b.list, sched.Budget{Allowed: pdb.Status.DisruptionsAllowed, Charges: func(pod *corev1.Pod) bool {
			if pod.Namespace != pdb.Namespace || budget.Bypasses(pod) || !covers.Matches(labels.Set(pod.Labels)) {
				return false
			}
			_, spent := pdb.Status.DisruptedPods[pod.Name]
			return !spent && !budget.Spares(pdb, pod)
		}})
	}
	return b
}

// spend counts victims whose deletion the budgets' status does not show yet.
func (b *budgets) spend(victims []*sched.Pod) {
	for i := range b.list {
		for _, v := range victims {
			if b.list[i].Charges(v.Object) {
				b.list[i].Allowed--
			}
		}
	}
}
