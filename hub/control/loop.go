// Package control has what every controller of the hub is made of: its loop, its queue, and its view of the API.
//
//	changes of some kinds ─► keys ─► queue ─► CatchUp ─► Reconcile(key): read the cache, decide, write
//	                                   ▲                                   │ error: again, later each time
//	                                   └───────────────────────────────────┘ "again after": at a known deadline
//
// A controller is level-triggered: Reconcile compares what is with what should be and never depends on an event. A change that
// was missed, seen twice or seen late costs time and nothing else. There is no periodic resync: a key comes up when something it depends
// on has changed or when its own deadline (a grace period, a progress deadline) is due. Idle means idle.
//
// Each controller is a package below this one, with a pure part that decides and a thin part that reads and writes.
package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"petrel.dev/petrel/internal/contain"
	"petrel.dev/petrel/internal/kube"
)

// Key names what a Reconcile is about: mostly an object, sometimes anything else that has a namespace and a name.
// GVK is empty except in loops that reconcile more than one kind.
type Key struct {
	GVK       kube.GVK
	Namespace string
	Name      string
}

// KeyOf returns the key of an object in a loop of one kind.
func KeyOf(obj kube.Object) Key {
	return Key{Namespace: obj.GetNamespace(), Name: obj.GetName()}
}

func (k Key) String() string {
	s := k.Name
	if k.Namespace != "" {
		s = k.Namespace + "/" + k.Name
	}
	if k.GVK.Kind != "" {
		s = k.GVK.Kind + " " + s
	}
	return s
}

// LogValue returns the key as one readable attribute.
func (k Key) LogValue() slog.Value { return slog.StringValue(k.String()) }

// Source is a kind whose changes a loop follows.
type Source struct {
	GVK kube.GVK
	// Keys maps a change to what must be looked at again; nil means the object's own key. It is called from the feed's
	// goroutine: it may read the cache, and must be quick. For an update it should consider both Old and New, since a
	// relation may have ended with this change.
	Keys func(c Change) []Key
}

// Loop runs one controller. Its exported fields are set before Run, or the first Enqueue, and do not change afterwards.
type Loop struct {
	Name   string // in log lines and as the site of contained panics
	Client Client // never nil
	// Sources are the kinds followed. At the start each existing object counts as created. Follow adds more.
	Sources []Source
	// Every makes the loop follow all stored kinds as well, also those that are added later; nil: only Sources.
	Every *EveryKind
	// Reconcile brings one key from what is to what should be. It reads all that was committed before it is called, including what
	// an earlier call wrote: a loop that counts never acts twice. A positive requeueAfter asks for another call after that time at the
	// latest, and replaces what an earlier call asked for. After an error the key comes again, with a delay that doubles. A panic is
	// an error of its key. A conflict (another writer was faster) is logged at debug level only.
	Reconcile func(ctx context.Context, key Key) (requeueAfter time.Duration, err error)
	// Workers is how many keys may be reconciled at a time (default 1). One key is never with two workers.
	Workers int
	Log     *slog.Logger // nil: no log; init replaces it, so that it is never nil afterwards

	once     sync.Once // guards init: Enqueue may come before Run
	queue    *queue    // set by init, never nil afterwards; has its own lock
	keysSite string    // of panics in Source.Keys; set by init
}

// Delays after an error: the first, and the longest.
const (
	firstRetry   = 5 * time.Millisecond
	longestRetry = 5 * time.Minute
	// longestConflict is short: the next call reads what the other writer wrote.
	longestConflict = time.Second
)

// Enqueue asks for a reconcile of key, for reasons other than the change of an object (a node's session has ended). It may
// be called at any time, also before Run, and from any goroutine.
func (l *Loop) Enqueue(key Key) {
	l.init()
	l.queue.add(key)
}

func (l *Loop) init() {
	l.once.Do(func() {
		l.queue, l.keysSite = newQueue(), "control/"+l.Name+"/keys"
		if l.Log == nil {
			l.Log = slog.New(slog.DiscardHandler)
		}
	})
}

// Run follows the sources and reconciles until ctx ends; then it waits for the calls under way and returns nil. It may
// be called once.
func (l *Loop) Run(ctx context.Context) error {
	if l.Client == nil || l.Reconcile == nil {
		return fmt.Errorf("control loop %q: needs a Client and a Reconcile function", l.Name)
	}
	l.init()
	defer l.queue.stop()
	if len(l.Sources) > 0 {
		l.Client.Subscribe(ctx, l.changed, l.kinds()...)
	}
	failures := &failureCount{n: map[Key]int{}}
	var wg sync.WaitGroup
	if l.Every != nil {
		// No worker starts before all kinds are followed: it would take the objects of the others for absent.
		known := make(chan struct{})
		wg.Go(func() { l.followKinds(ctx, sync.OnceFunc(func() { close(known) })) })
		select {
		case <-known:
		case <-ctx.Done():
		}
	}
	for range max(1, l.Workers) {
		wg.Go(func() { l.work(ctx, failures) })
	}
	wg.Wait()
	return nil
}

func (l *Loop) kinds() []kube.GVK {
	var out []kube.GVK
	seen := map[kube.GVK]bool{}
	for _, s := range l.Sources {
		if !seen[s.GVK] {
			seen[s.GVK] = true
			out = append(out, s.GVK)
		}
	}
	return out
}

func (l *Loop) changed(c Change) {
	for _, s := range l.Sources {
		if s.GVK == c.GVK {
			l.offer(s, c)
		}
	}
}

// offer queues the keys that a change of a source's kind concerns.
func (l *Loop) offer(s Source, c Change) {
	own := KeyOf(c.Object())
	if s.Keys == nil {
		l.queue.add(own)
		return
	}
	var keys []Key
	if contain.Lazy(l.Log, l.keysSite, own.String, func() error { keys = s.Keys(c); return nil }) != nil {
		keys = []Key{own} // the best guess: what else depends on it comes up with its own changes
	}
	for _, k := range keys {
		l.queue.add(k)
	}
}

func (l *Loop) work(ctx context.Context, failures *failureCount) {
	for {
		key, ok := l.queue.next(ctx)
		if !ok {
			return
		}
		var after time.Duration
		err := contain.Do(l.Log, "control/"+l.Name, key.String(), func() (err error) {
			if err := l.Client.CatchUp(ctx); err != nil {
				return err
			}
			after, err = l.Reconcile(ctx, key)
			return err
		})
		switch {
		case err == nil:
			failures.forget(key)
		case ctx.Err() != nil:
			after = 0
		case apierrors.IsConflict(err):
			after = backoff(failures.add(key), longestConflict)
			l.Log.Debug("reconcile met a conflict, will try again", "controller", l.Name, "key", key, "error", err)
		default:
			n := failures.add(key)
			after = backoff(n, longestRetry)
			l.Log.Warn("reconcile failed, will try again", "controller", l.Name, "key", key, "in", after, "failures", n, "error", err)
		}
		l.queue.done(key, after)
	}
}

// backoff doubles with each failure, with up to a tenth of jitter: keys that failed together are not retried together.
func backoff(n int, longest time.Duration) time.Duration {
	d := longest
	if n < 20 {
		d = min(longest, firstRetry<<(n-1))
	}
	return d + rand.N(d/10+1)
}

// failureCount counts the failures of each key since its last success; a key that succeeds is removed, so that it does not grow.
type failureCount struct {
	mu sync.Mutex
	n  map[Key]int // guarded by mu
}

func (f *failureCount) add(k Key) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.n[k]++
	return f.n[k]
}

func (f *failureCount) forget(k Key) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.n, k)
}

// Object returns the changed object: New, or Old when it is gone.
func (c Change) Object() kube.Object {
	if c.New != nil {
		return c.New
	}
	return c.Old
}

// IgnoreNotFound returns nil for an error that means that the object is gone already, and any other error unchanged.
func IgnoreNotFound(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// JoinErrors returns errors.Join of the results of several writes, but without conflicts when there is another error. Of
// conflicts alone it returns the last one, so that apierrors.IsConflict holds for the result.
func JoinErrors(errs ...error) error {
	var worse []error
	var conflict error
	for _, err := range errs {
		switch {
		case err == nil:
		case apierrors.IsConflict(err):
			conflict = err
		default:
			worse = append(worse, err)
		}
	}
	if len(worse) == 0 {
		return conflict
	}
	return errors.Join(worse...)
}
