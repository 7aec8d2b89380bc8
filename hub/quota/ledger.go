package quota

import (
	"context"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
)

// Objects reads and follows stored objects; *objects.Cache is one.
type Objects interface {
	control.Reader
	control.Feed
	// Delivered returns nil once subscribers have been given all that was committed before the call, otherwise an error.
	Delivered(ctx context.Context) error
}

// Ledger has a tally of each quota that was asked for. It is safe for concurrent use.
type Ledger struct {
	objects Objects
	// kind returns the stored kind of a resource, false as long as none is served.
	kind func(schema.GroupResource) (kube.GVK, bool)

	mu      sync.Mutex
	changed func(types.NamespacedName)      // set by Notify; guarded by mu
	tallies map[types.NamespacedName]*tally // by quota; guarded by mu
}

// NewLedger returns an empty ledger.
func NewLedger(objects Objects, kind func(schema.GroupResource) (kube.GVK, bool)) *Ledger {
	return &Ledger{objects: objects, kind: kind, changed: func(types.NamespacedName) {}, tallies: map[types.NamespacedName]*tally{}}
}

// Notify makes f be called, from any goroutine, when what a quota's objects take may have changed. f must be quick.
func (l *Ledger) Notify(f func(types.NamespacedName)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.changed = f
}

// Used returns what the quota's objects take, for each resource of its that is counted.
func (l *Ledger) Used(q *corev1.ResourceQuota) corev1.ResourceList { return l.of(q).total() }

// Forget drops the tally of a quota that is gone.
func (l *Ledger) Forget(name types.NamespacedName) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if t := l.tallies[name]; t != nil {
		t.stop()
		delete(l.tallies, name)
	}
}

// of returns the quota's tally, which has counted all that exists.
func (l *Ledger) of(q *corev1.ResourceQuota) *tally {
	name := types.NamespacedName{Namespace: q.Namespace, Name: q.Name}
	l.mu.Lock()
	t := l.tallies[name]
	if t == nil || !t.counts(q) {
		if t != nil {
			t.stop()
		}
		t = newTally(q, func() { l.notify(name) })
		l.tallies[name] = t
	}
	l.mu.Unlock()
	for gr := range counted(q.Spec.Hard) {
		if gvk, ok := l.kind(gr); ok { // a kind may be served only now
			t.follow(l.objects, gr, gvk)
		}
	}
	if now, ok := control.Get[*corev1.ResourceQuota](l.objects, kube.ResourceQuota, q.Namespace, q.Name); !ok || now.UID != q.UID {
		l.drop(name, t) // gone meanwhile, so nothing else drops it
	}
	return t
}

func (l *Ledger) notify(name types.NamespacedName) {
	l.mu.Lock()
	f := l.changed
	l.mu.Unlock()
	f(name)
}

func (l *Ledger) drop(name types.NamespacedName, t *tally) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.tallies[name] == t {
		t.stop()
		delete(l.tallies, name)
	}
}

// Write is a write as quotas see it.
type Write struct {
	Resource schema.GroupResource
	GVK      kube.GVK
	New, Old kube.Object // Old is nil for a creation
	DryRun   bool
}

// Reserve takes what the write adds from each of the quotas, or from none and returns why: a *Refusal. What is reserved is given
// back when ctx has ended and reads show what the write has stored, if anything.
func (l *Ledger) Reserve(ctx context.Context, quotas []*corev1.ResourceQuota, w Write) error {
	now, c := time.Now(), counterOf(w.Resource)
	whole := c.usage(w.New, now)
	type taken struct {
		*tally
		*reservation
	}
	var have []taken
	giveBack := func() {
		for _, t := range have {
			t.release(w.New.GetUID(), t.reservation)
		}
	}
	takes := make([]corev1.ResourceList, len(quotas)) // of all first: what an object lacks is named before what it exceeds
	for i, q := range quotas {
		var err error
		if takes[i], err = c.takes(q, w, whole, now); err != nil {
			return err
		}
	}
	for i, q := range quotas {
		if len(takes[i]) == 0 {
			continue
		}
		r := &reservation{takes: takes[i], whole: whole, until: now.Add(reserveTime)}
		t := l.of(q)
		if x := l.await(ctx, t, w, r, q.Spec.Hard); x != nil {
			giveBack()
			return &Refusal{exceeded(q.Name, x.asked, x.used, x.limit)}
		}
		if !w.DryRun {
			have = append(have, taken{t, r})
		}
	}
	if len(have) > 0 {
		context.AfterFunc(ctx, func() {
			if l.settled(w) {
				giveBack()
			}
		})
	}
	return nil
}

// await reserves r of t for a write, or returns what would be exceeded. Where the answer depends on it, the tally has first been given
// what was committed before.
func (l *Ledger) await(ctx context.Context, t *tally, w Write, r *reservation, hard corev1.ResourceList) *excess {
	// An earlier write of the object that has been stored counts beside this one; one that has not is replaced by it.
	current := t.reserves(w.New.GetUID()) && l.objects.Delivered(ctx) == nil
	x := t.await(ctx, w.New.GetUID(), r, hard, w.DryRun)
	if x != nil && !current && l.objects.Delivered(ctx) == nil { // what was deleted a moment ago may have been counted
		x = t.await(ctx, w.New.GetUID(), r, hard, w.DryRun)
	}
	return x
}

// settled waits until reads show what the write has stored, and reports whether that was nothing. Otherwise the feed brings it to the
// tallies, which then drop the reservation themselves.
func (l *Ledger) settled(w Write) bool {
	ctx, cancel := context.WithTimeout(context.Background(), reserveTime)
	defer cancel()
	if err := l.objects.CatchUp(ctx); err != nil {
		return false // it ends with its time
	}
	obj, ok := l.objects.Get(w.GVK, w.New.GetNamespace(), w.New.GetName())
	if !ok || obj.GetUID() != w.New.GetUID() {
		return true
	}
	if w.Old == nil {
		return false
	}
	c, now := counterOf(w.Resource), time.Now()
	return len(beyond(c.usage(w.New, now), c.usage(obj, now))) > 0
}
