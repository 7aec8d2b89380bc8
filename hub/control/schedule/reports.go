package schedule

import (
	"context"
	"math"
	"time"

	"petrel.dev/petrel/sched"
)

// Images reports for which architectures images exist, and where they are.
type Images interface {
	// Subscribe calls saw with all that is known and then with each change, one call at a time, until ctx ends. Without
	// architectures: nothing is known of this image any more. saw must return at once.
	Subscribe(ctx context.Context, saw func(image string, architectures []string))
	// SubscribeNodes calls saw with each node that has an image, and then with each change, likewise.
	SubscribeNodes(ctx context.Context, saw func(image, node string, has bool))
}

// Links reports which nodes are connected.
type Links interface {
	// Presence reports whether a node is connected now.
	Presence(node string) (connected bool, lastSeen time.Time)
	// Watch calls saw whenever a node's presence changes, until ctx ends. It returns at once; saw must too.
	Watch(ctx context.Context, saw func(node string))
}

// reports are what nodes have reported and the scheduler has not yet taken in. Guarded by Scheduler.mu.
type reports struct {
	images map[string][]string // architectures by image
	where  []imageOn
	links  map[string]bool // connected, by node
}

type imageOn struct {
	image, node string
	has         bool
}

func newReports() reports { return reports{images: map[string][]string{}, links: map[string]bool{}} }

// follow subscribes to reports until ctx ends.
func (s *Scheduler) follow(ctx context.Context) {
	report := func(f func(r *reports)) {
		s.mu.Lock()
		f(&s.reports)
		s.mu.Unlock()
		s.wake()
	}
	if images := s.cfg.Images; images != nil {
		images.Subscribe(ctx, func(image string, architectures []string) {
			report(func(r *reports) { r.images[image] = architectures })
		})
		images.SubscribeNodes(ctx, func(image, node string, has bool) {
			report(func(r *reports) { r.where = append(r.where, imageOn{image, node, has}) })
		})
	}
	if links := s.cfg.Links; links != nil {
		links.Watch(ctx, func(node string) {
			connected, _ := links.Presence(node)
			report(func(r *reports) { r.links[node] = connected })
		})
	}
}

// takeReports brings the snapshot up to what nodes have reported.
func (s *Scheduler) takeReports(r reports, now time.Time) {
	for name, architectures := range r.images {
		s.snap.SetImage(name, architectures...)
		s.changes.add(sched.ImageSeen, "")
	}
	for _, on := range r.where {
		s.snap.SetImageOn(on.image, on.node, on.has)
	}
	for node, connected := range r.links {
		l := s.links[node]
		if l == nil {
			l = &link{}
			s.links[node] = l
		}
		l.set(connected, now)
		s.snap.SetLink(node, l.quality(now))
	}
	if now.Sub(s.linksAt) < time.Minute {
		return
	}
	s.linksAt = now
	for node, l := range s.links {
		s.snap.SetLink(node, l.quality(now))
		if l.connected && l.losses(now) < 0.05 {
			delete(s.links, node) // as good as new
		}
	}
}

// link is how a node's connection has been. The zero value is that of a node that has not connected.
type link struct {
	connected bool
	lost      float64 // connections, each counting less with time; as of at
	at        time.Time
}

// forgiven is how long it takes until a lost connection counts half.
const forgiven = time.Hour

func (l *link) losses(now time.Time) float64 {
	return l.lost * math.Exp2(-now.Sub(l.at).Hours()/forgiven.Hours())
}

func (l *link) set(connected bool, now time.Time) {
	if l.connected && !connected {
		l.lost, l.at = l.losses(now)+1, now
	}
	l.connected = connected
}

// quality is 100 for a connection that holds, less for one that is lost now and then, and 0 when there is none.
func (l *link) quality(now time.Time) int {
	if !l.connected {
		return 0
	}
	return int(100 / (1 + l.losses(now)))
}
