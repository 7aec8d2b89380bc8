// Package prefetch has images on a node before the pod that needs them: a rolling update that deletes a pod first then costs a slow link
// time, and not service.
//
//	controller ─► Ready(owner, node, template)? ─► no: a stream to the node, which pulls ─► wake the controller ─► Ready: the old pod goes
//
// Nothing is stored: after a start of the hub the controllers ask again, and the nodes answer at once for what they have. What cannot be had
// does not hold an update for good: after a few failures, or a few hours, the old pod goes and the new one shows why it does not start.
package prefetch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/contain"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/wire"
)

const (
	// abreast is how many nodes may fetch at a time.
	abreast = 64
	// patience is how long an update waits for the images of one node, retries included.
	patience = 6 * time.Hour
	// attempts is how often a node may answer that an image cannot be had.
	attempts = 3
	// pause is the time between two attempts.
	pause = 30 * time.Second
	// maxAway is how often a node that cannot be reached is tried: longer than it takes to be dark, which defers its update.
	maxAway = 10
	// keep is how long the result of a fetch is remembered after nobody has asked for it.
	keep = time.Hour
	// maxEntries bounds what is remembered.
	maxEntries = 10000
)

// errAway says that a node could not be reached for a while. Nothing is known of its images: who asks again starts anew.
var errAway = errors.New("the node cannot be reached")

// Nodes opens streams to agents. hub/dispatch is one.
type Nodes interface {
	// OpenStream opens a stream; its error is a Status.
	OpenStream(ctx context.Context, node string, req wire.StreamRequest) (wire.Stream, error)
}

// Config is what a Fetcher needs. All of it is required.
type Config struct {
	Objects control.Reader
	Nodes   Nodes
	Events  control.Events // as prefetch
	Log     *slog.Logger
}

// Fetcher asks nodes for images. It is safe for concurrent use.
type Fetcher struct {
	cfg    Config
	signal chan struct{} // one token while waiting may hold something
	places chan struct{} // one for each node that fetches

	mu      sync.Mutex
	entries map[key]*entry // guarded by mu, and so are their fields
	waiting []*entry       // to be started; guarded by mu
}

type key struct {
	owner types.UID
	node  string
}

// entry is the images of one template for one node.
type entry struct {
	key
	template string // its hash
	obj      kube.Object
	request  func() kube.ImageFetch
	wake     func()
	asked    time.Time          // last
	done     bool               // there, or given up
	cancel   context.CancelFunc // nil before it is started
}

// New returns a Fetcher; Run starts it.
func New(cfg Config) *Fetcher {
	return &Fetcher{cfg: cfg, signal: make(chan struct{}, 1), places: make(chan struct{}, abreast), entries: map[key]*entry{}}
}

// Ready reports whether a pod of owner with a template may replace the one on a node: its images are there, or need not be waited for. Otherwise
// the node begins to fetch them, and wake is called when it has ended. template identifies the template among the owner's.
func (f *Fetcher) Ready(owner kube.Object, node *corev1.Node, template string, spec *corev1.PodSpec, wake func()) bool {
	if !f.wanted(owner, node) {
		return true
	}
	k := key{owner.GetUID(), node.Name}
	f.mu.Lock()
	defer f.mu.Unlock()
	e := f.entries[k]
	if e != nil && e.template == template {
		e.asked, e.wake = time.Now(), wake
		return e.done
	}
	if e != nil && e.cancel != nil {
		e.cancel() // of another template
	}
	f.forgetOld()
	if len(f.entries) >= maxEntries {
		return true // better an update without than none
	}
	namespace := owner.GetNamespace()
	e = &entry{key: k, template: template, obj: owner, wake: wake, asked: time.Now(), request: func() kube.ImageFetch { return request(f.cfg.Objects, namespace, spec) }}
	f.entries[k] = e
	f.waiting = append(f.waiting, e)
	select {
	case f.signal <- struct{}{}:
	default:
	}
	return false
}

// wanted reports whether the owner's update fetches ahead on a node: as its annotation says, otherwise where the link is paid by the byte.
func (f *Fetcher) wanted(owner kube.Object, node *corev1.Node) bool {
	text, set := owner.GetAnnotations()[kube.PrefetchAnnotation]
	switch {
	case text == "true":
		return true
	case text == "false":
		return false
	case set:
		f.cfg.Events.Event(owner, corev1.EventTypeWarning, "InvalidAnnotation",
			"annotation %s: %q is not used: it must be \"true\" or \"false\"; without it images are fetched ahead on nodes with the label %s=true", kube.PrefetchAnnotation, text, kube.MeteredLabel)
	}
	return kube.Metered(node)
}

// forgetOld drops results that nobody has asked for lately. mu is held.
func (f *Fetcher) forgetOld() {
	for k, e := range f.entries {
		if e.done && time.Since(e.asked) > keep {
			delete(f.entries, k)
		}
	}
}

// Run starts what is asked for, until ctx ends.
func (f *Fetcher) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-f.signal:
		}
		f.mu.Lock()
		list := f.waiting
		f.waiting = nil
		for _, e := range list {
			var own context.Context
			own, e.cancel = context.WithTimeout(ctx, patience)
			wg.Go(func() { f.follow(own, e) })
		}
		f.mu.Unlock()
	}
}

// follow fetches until the images are there or given up, and wakes the controller.
func (f *Fetcher) follow(ctx context.Context, e *entry) {
	err := contain.Do(f.cfg.Log, "prefetch", e.node, func() error { return f.try(ctx, e) })
	if err != nil && !errors.Is(err, errAway) && ctx.Err() != context.Canceled {
		f.cfg.Log.Warn("images not fetched ahead, the update goes on without", "owner", control.KeyOf(e.obj), "node", e.node, "error", err)
		f.cfg.Events.Event(e.obj, corev1.EventTypeWarning, "PrefetchFailed", "Images for node %s could not be fetched before the update, which goes on without: %v", e.node, err)
	}
	f.mu.Lock()
	e.cancel()
	e.done = true
	wake, current := e.wake, f.entries[e.key] == e
	if current && errors.Is(err, errAway) {
		delete(f.entries, e.key)
	}
	f.mu.Unlock()
	if current {
		contain.Go(f.cfg.Log, "prefetch/wake", e.node, wake)
	}
}

func (f *Fetcher) try(ctx context.Context, e *entry) error {
	begin, failures, away := time.Now(), 0, 0
	for {
		select {
		case f.places <- struct{}{}:
		case <-ctx.Done():
			return fmt.Errorf("it took more than %v", patience)
		}
		err, final := f.fetch(ctx, e)
		<-f.places
		switch {
		case err == nil:
			f.cfg.Log.Info("images fetched ahead", "owner", control.KeyOf(e.obj), "node", e.node, "took", time.Since(begin).Round(time.Second))
			return nil
		case final:
			if failures++; failures == attempts {
				return err
			}
		default:
			if away++; away == maxAway {
				return errAway
			}
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return fmt.Errorf("it took more than %v: %w", patience, err)
		}
	}
}
