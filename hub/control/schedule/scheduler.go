package schedule

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/contain"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/sched"
)

// Config is what a Scheduler needs.
type Config struct {
	Client control.Client
	// Events is where decisions are reported to users; nil discards.
	Events control.Events
	Log    *slog.Logger // nil discards
	// Images reports for which architectures images exist, and where they are; nil: nothing is known, and any node may have any pod.
	Images Images
	// Links reports which nodes are connected; nil: all are alike.
	Links Links
	// Metrics count what is decided; nil: nobody sees them.
	Metrics *Metrics
}

// Scheduler binds pods to nodes. New makes one.
type Scheduler struct {
	cfg Config // does not change after New; no field is nil

	mu      sync.Mutex
	intake  []control.Change // not yet taken in, in commit order; guarded by mu
	reports reports          // not yet taken in; guarded by mu
	signal  chan struct{}    // one token while intake or reports may hold something

	// The rest is owned by Run's goroutine.
	snap    *sched.Snapshot // with assumed pods on their nodes
	queue   *queue
	assumed map[types.UID]bool // bound in the snapshot, and not yet by a change from the feed
	gated   map[types.UID]bool // pods that wait for their scheduling gates
	links   map[string]*link   // by node; those without an entry have lost nothing
	linksAt time.Time          // when the qualities of all were last worked out
	changes changes            // since the queue was last woken
	budgets *budgets           // of the round that is going on; nil until one is needed
}

// New returns a Scheduler; Run starts it.
func New(cfg Config) *Scheduler {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Events == nil {
		cfg.Events = nobody{}
	}
	if cfg.Metrics == nil {
		cfg.Metrics = NewMetrics()
	}
	return &Scheduler{cfg: cfg, reports: newReports(), links: map[string]*link{}, signal: make(chan struct{}, 1), snap: sched.NewSnapshot(), queue: newQueue(),
		assumed: map[types.UID]bool{}, gated: map[types.UID]bool{}}
}

type nobody struct{}

func (nobody) Event(kube.Object, string, string, string, ...any) {}

// site is where contained panics of the scheduler count: each belongs to one object or to one pod's binding.
const site = "control/schedule"

// maxBatch is how many pods are decided in one round and committed together.
const maxBatch = 256

// Run schedules until ctx ends, and returns nil then.
func (s *Scheduler) Run(ctx context.Context) error {
	s.follow(ctx)
	s.cfg.Client.Subscribe(ctx, s.saw, append([]kube.GVK{kube.Pod, kube.Node, kube.Namespace}, volumeKinds...)...)
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	defer timer.Stop()
	for ctx.Err() == nil {
		now := time.Now()
		s.takeIn(now)
		s.wakeQueue()
		s.cfg.Metrics.pending(s.queue, len(s.gated))
		if batch := s.queue.take(now, maxBatch); len(batch) > 0 {
			s.round(ctx, batch)
			continue
		}
		timer.Stop()
		if wait, ok := s.queue.next(now); ok {
			timer.Reset(wait)
		}
		select {
		case <-ctx.Done():
		case <-s.signal:
		case <-timer.C:
		}
	}
	return nil
}

// saw is called by the feed.
func (s *Scheduler) saw(c control.Change) {
	s.mu.Lock()
	s.intake = append(s.intake, c)
	s.mu.Unlock()
	s.wake()
}

func (s *Scheduler) wake() {
	select {
	case s.signal <- struct{}{}:
	default:
	}
}

// takeIn brings snapshot and queue up to what the feed has delivered.
func (s *Scheduler) takeIn(now time.Time) {
	s.mu.Lock()
	changes, reports := s.intake, s.reports
	s.intake, s.reports = nil, newReports()
	s.mu.Unlock()
	for _, c := range changes {
		contain.Go(s.cfg.Log, site, control.KeyOf(c.Object()).String(), func() { s.takeOne(c) })
	}
	s.takeReports(reports, now) // afterwards: of nodes that are not known nothing is recorded
}

// takeOne applies one change to snapshot and queue.
func (s *Scheduler) takeOne(c control.Change) {
	switch c.GVK {
	case kube.Pod:
		s.pod(c)
	case kube.Node:
		s.node(c)
	case kube.Namespace:
		s.changes.add(sched.NamespaceLabels, "")
		if c.New == nil {
			s.snap.RemoveNamespace(c.Old.GetName())
		} else {
			s.snap.SetNamespace(c.New.GetName(), c.New.GetLabels())
		}
	default:
		s.volume(c)
	}
}

// pod applies a changed pod.
func (s *Scheduler) pod(c control.Change) {
	uid := c.Object().GetUID()
	old, was := s.snap.Pod(uid)
	if c.New == nil || control.PodFinished(c.New.(*corev1.Pod)) {
		delete(s.assumed, uid)
		s.drop(uid)
		if was {
			s.snap.RemovePod(uid)
			s.left(old)
		}
		return
	}
	pod := c.New.(*corev1.Pod)
	switch {
	case pod.Spec.NodeName != "":
		delete(s.assumed, uid)
		s.drop(uid)
		if was && old.Object.ResourceVersion == pod.ResourceVersion {
			return
		}
		prepared := sched.NewPod(pod)
		s.snap.SetPod(prepared)
		s.changes.add(placedChange(old, prepared), pod.Spec.NodeName)
	case s.assumed[uid]: // an older version: the feed has yet to deliver the binding
	case wanted(pod):
		delete(s.gated, uid)
		s.waiting(pod)
	default:
		s.drop(uid)
		if len(pod.Spec.SchedulingGates) > 0 && ours(pod) {
			s.gated[uid] = true
		}
	}
}

// left notes that a pod occupies its node, and its claims, no longer.
func (s *Scheduler) left(p *sched.Pod) {
	s.changes.add(sched.PodLeft, p.Object.Spec.NodeName)
	if len(p.Claims()) > 0 {
		s.changes.add(sched.Volumes, "")
	}
}

// placedChange returns what the new version of a pod that has a node may mean to pods that wait; old is nil for a new one.
func placedChange(old, pod *sched.Pod) (what sched.Change) {
	if old == nil {
		return sched.PodCame
	}
	if !maps.Equal(old.Object.Labels, pod.Object.Labels) {
		what |= sched.PodLabels
	}
	if (old.Object.DeletionTimestamp == nil) != (pod.Object.DeletionTimestamp == nil) || pod.NeedsLess(old) {
		what |= sched.PodLeft // spreading stops counting one that leaves
	}
	return what
}

// waiting takes in a pod that waits for a node, and the promise in its status, if that has changed.
func (s *Scheduler) waiting(pod *corev1.Pod) {
	before := s.queue.entries[pod.UID]
	same := before != nil && before.pod.Status.NominatedNodeName == pod.Status.NominatedNodeName
	e := s.queue.set(pod)
	node := e.nominated
	if !same {
		node = pod.Status.NominatedNodeName
	}
	if node != "" || e.nominated != "" {
		s.nominate(e, node)
	}
}

// drop forgets a pod that waits no longer for this scheduler, and what was promised to it.
func (s *Scheduler) drop(uid types.UID) {
	delete(s.gated, uid)
	if e := s.queue.entries[uid]; e != nil {
		s.queue.remove(uid)
		if e.nominated != "" {
			s.nominate(e, "")
		}
	}
}

// wanted reports whether an unbound pod is this scheduler's to place, now.
func wanted(pod *corev1.Pod) bool {
	return pod.DeletionTimestamp == nil && len(pod.Spec.SchedulingGates) == 0 && ours(pod)
}

func ours(pod *corev1.Pod) bool {
	return pod.Spec.SchedulerName == "" || pod.Spec.SchedulerName == corev1.DefaultSchedulerName
}
