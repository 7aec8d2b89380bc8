package schedule

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
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
	// Images reports for which architectures images exist; nil: nothing is known, and any node may have any pod.
	Images Images
}

// Images reports for which architectures images exist.
type Images interface {
	// Subscribe calls saw with all that is known and then with each change, one call at a time, until ctx ends. Without
	// architectures: nothing is known of this image any more. saw must return at once.
	Subscribe(ctx context.Context, saw func(image string, architectures []string))
}

// Scheduler binds pods to nodes. New makes one.
type Scheduler struct {
	cfg Config // does not change after New; no field is nil

	mu     sync.Mutex
	intake []control.Change    // not yet taken in, in commit order; guarded by mu
	images map[string][]string // not yet taken in: architectures by image; guarded by mu
	signal chan struct{}       // one token while intake or images may hold something

	// The rest is owned by Run's goroutine.
	snap    *sched.Snapshot // with assumed pods on their nodes
	queue   *queue
	assumed map[types.UID]bool // bound in the snapshot, and not yet by a change from the feed
}

// New returns a Scheduler; Run starts it.
func New(cfg Config) *Scheduler {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Events == nil {
		cfg.Events = nobody{}
	}
	return &Scheduler{cfg: cfg, images: map[string][]string{}, signal: make(chan struct{}, 1), snap: sched.NewSnapshot(), queue: newQueue(), assumed: map[types.UID]bool{}}
}

type nobody struct{}

func (nobody) Event(kube.Object, string, string, string, ...any) {}

// site is where contained panics of the scheduler count: each belongs to one object or to one pod's binding.
const site = "control/schedule"

// maxBatch is how many pods are decided in one round and committed together.
const maxBatch = 256

// Run schedules until ctx ends, and returns nil then.
func (s *Scheduler) Run(ctx context.Context) error {
	if s.cfg.Images != nil {
		s.cfg.Images.Subscribe(ctx, s.sawImage)
	}
	s.cfg.Client.Subscribe(ctx, s.saw, append([]kube.GVK{kube.Pod, kube.Node, kube.Namespace}, volumeKinds...)...)
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	defer timer.Stop()
	for ctx.Err() == nil {
		now := time.Now()
		s.takeIn(now)
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

// sawImage is called by Images.
func (s *Scheduler) sawImage(image string, architectures []string) {
	s.mu.Lock()
	s.images[image] = architectures
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
	changes, images := s.intake, s.images
	s.intake, s.images = nil, map[string][]string{}
	s.mu.Unlock()
	roomier := len(images) > 0 // this is rare, so it is not checked which of them allows more
	for name, architectures := range images {
		s.snap.SetImage(name, architectures...)
	}
	for _, c := range changes {
		contain.Go(s.cfg.Log, site, control.KeyOf(c.Object()).String(), func() { roomier = s.takeOne(c) || roomier })
	}
	if roomier {
		s.queue.wake(now)
	}
}

// takeOne applies one change to snapshot and queue, and reports whether there may be more room now.
func (s *Scheduler) takeOne(c control.Change) bool {
	switch c.GVK {
	case kube.Pod:
		return s.pod(c)
	case kube.Node:
		return s.node(c)
	case kube.Namespace:
		if c.New == nil {
			s.snap.RemoveNamespace(c.Old.GetName())
		} else {
			s.snap.SetNamespace(c.New.GetName(), c.New.GetLabels())
		}
	default:
		return s.volume(c)
	}
	return false
}

// node applies a changed node and reports whether pods that fitted nowhere may fit now.
func (s *Scheduler) node(c control.Change) bool {
	if c.New == nil {
		s.snap.RemoveNode(c.Old.GetName())
		return true // its zone may have been the emptiest, which held others back by their spread constraints
	}
	n := c.New.(*corev1.Node)
	if c.Old != nil && sameForScheduling(c.Old.(*corev1.Node), n) {
		return false
	}
	s.snap.SetNode(n)
	return true
}

// sameForScheduling reports whether an update of a node changes nothing that placement depends on, as the usual update of a
// condition does.
func sameForScheduling(a, b *corev1.Node) bool {
	return a.UID == b.UID && a.Spec.Unschedulable == b.Spec.Unschedulable && maps.Equal(a.Labels, b.Labels) &&
		equality.Semantic.DeepEqual(a.Spec.Taints, b.Spec.Taints) &&
		equality.Semantic.DeepEqual(a.Status.Allocatable, b.Status.Allocatable) &&
		a.Status.NodeInfo.Architecture == b.Status.NodeInfo.Architecture
}

// pod applies a changed pod and reports whether it has made room, or may now satisfy the affinity of others.
func (s *Scheduler) pod(c control.Change) bool {
	if c.New == nil || control.PodFinished(c.New.(*corev1.Pod)) {
		uid := c.Object().GetUID()
		delete(s.assumed, uid)
		s.queue.remove(uid)
		_, was := s.snap.Pod(uid)
		s.snap.RemovePod(uid)
		return was
	}
	pod := c.New.(*corev1.Pod)
	old, was := s.snap.Pod(pod.UID)
	switch {
	case pod.Spec.NodeName != "":
		delete(s.assumed, pod.UID)
		s.queue.remove(pod.UID)
		if was && old.Object.ResourceVersion == pod.ResourceVersion {
			return false
		}
		s.snap.SetPod(sched.NewPod(pod))
		// Another pod's affinity may have waited for this one; spreading stops counting one that leaves.
		return !was || !maps.Equal(old.Object.Labels, pod.Labels) || (old.Object.DeletionTimestamp == nil) != (pod.DeletionTimestamp == nil)
	case s.assumed[pod.UID]: // an older version: the feed has yet to deliver the binding
	case wanted(pod):
		s.queue.set(pod)
	default:
		s.queue.remove(pod.UID)
	}
	return false
}

// wanted reports whether an unbound pod is this scheduler's to place, now.
func wanted(pod *corev1.Pod) bool {
	return pod.DeletionTimestamp == nil && len(pod.Spec.SchedulingGates) == 0 &&
		(pod.Spec.SchedulerName == "" || pod.Spec.SchedulerName == corev1.DefaultSchedulerName)
}
