package quota

import (
	"context"
	"maps"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
)

// reserveTime is how long a reservation lasts for a write whose context does not end: longer than any commit takes.
const reserveTime = 30 * time.Second

// tally is what one quota's objects take. Which resources and scopes it counts does not change.
type tally struct {
	uid       types.UID // of the quota
	namespace string
	names     map[corev1.ResourceName]bool // the quota's
	scopes    []corev1.ScopedResourceSelectorRequirement
	changed   func()          // called without mu when used may have changed
	ctx       context.Context // of all subscriptions
	end       context.CancelFunc

	following sync.Mutex                    // held while the objects of a kind are counted for the first time
	follows   map[schema.GroupResource]bool // kinds with a subscription; guarded by following

	mu       sync.Mutex
	used     corev1.ResourceList        // by all that the feed has shown, of the names of followed kinds; guarded by mu
	reserved map[types.UID]*reservation // by object, for writes that the feed has not shown; guarded by mu
	moved    chan struct{}              // closed when used or reserved changes; nil: nothing waits for that. Guarded by mu
	// ending are pods that stop counting at a time unless they are gone before; past are those for which that time has come, and
	// which still exist. Guarded by mu.
	ending map[types.UID]*ending
	past   map[types.UID]bool
	timer  *time.Timer // runs expire when the first of ending is due; nil: none. Guarded by mu
}

// reservation is what a write under way takes. It is immutable.
type reservation struct {
	takes corev1.ResourceList // beyond what the object takes already
	whole corev1.ResourceList // what the object takes when it is written
	until time.Time           // when it ends at the latest
}

// ending is a pod that is being deleted.
type ending struct {
	at  time.Time
	pod kube.Object
}

func newTally(q *corev1.ResourceQuota, changed func()) *tally {
	t := &tally{uid: q.UID, namespace: q.Namespace, names: namesOf(q), scopes: scopesOf(q), changed: changed,
		follows: map[schema.GroupResource]bool{}, used: corev1.ResourceList{}, reserved: map[types.UID]*reservation{},
		ending: map[types.UID]*ending{}, past: map[types.UID]bool{}}
	t.ctx, t.end = context.WithCancel(context.Background())
	return t
}

func namesOf(q *corev1.ResourceQuota) map[corev1.ResourceName]bool {
	out := make(map[corev1.ResourceName]bool, len(q.Spec.Hard))
	for name := range q.Spec.Hard {
		out[name] = true
	}
	return out
}

// counts reports whether the tally is of this quota as it is now.
func (t *tally) counts(q *corev1.ResourceQuota) bool {
	return t.uid == q.UID && maps.Equal(t.names, namesOf(q))
}

// follow counts the objects of a kind from now on, those that exist before it returns, also when another call has begun it.
func (t *tally) follow(feed control.Feed, gr schema.GroupResource, gvk kube.GVK) {
	t.following.Lock()
	defer t.following.Unlock()
	if t.follows[gr] {
		return
	}
	t.follows[gr] = true
	c := counterOf(gr)
	t.mu.Lock()
	for name := range t.names {
		if c.limits(name) {
			t.used[name] = resource.Quantity{Format: resource.DecimalSI}
		}
	}
	t.mu.Unlock()
	feed.Subscribe(t.ctx, func(ch control.Change) { t.change(c, ch) }, gvk)
}

// change takes in a change of the feed.
func (t *tally) change(c counter, ch control.Change) {
	obj := ch.Object()
	if obj.GetNamespace() != t.namespace || t.ctx.Err() != nil {
		return
	}
	now := time.Now()
	t.mu.Lock()
	if ch.Old != nil {
		subtract(t.used, t.usage(c, ch.Old, now))
	}
	if ch.New == nil {
		delete(t.past, obj.GetUID())
		delete(t.ending, obj.GetUID())
		delete(t.reserved, obj.GetUID())
	} else {
		t.expect(ch.New, now)
		takes := t.usage(c, ch.New, now)
		add(t.used, takes)
		if r := t.reserved[obj.GetUID()]; r != nil && len(beyond(r.whole, takes)) == 0 {
			delete(t.reserved, obj.GetUID())
		}
	}
	t.wakeWriters()
	t.mu.Unlock()
	t.changed()
}

// usage returns what the tally counts of an object. It gives the same for one state of an object whenever it is asked, but for
// pods whose time is over, which t.past has from then on. t.mu is held.
func (t *tally) usage(c counter, obj kube.Object, now time.Time) corev1.ResourceList {
	if !c.covers(t.scopes, obj) {
		return nil
	}
	if at, ok := deadline(obj); ok {
		now = at // counts still
		if t.past[obj.GetUID()] {
			now = at.Add(time.Nanosecond)
		}
	}
	return c.usage(obj, now)
}

// expect records when a pod that is being deleted stops counting. t.mu is held.
func (t *tally) expect(obj kube.Object, now time.Time) {
	at, ok := deadline(obj)
	if _, pod := obj.(*corev1.Pod); !pod || !ok {
		return
	}
	uid := obj.GetUID()
	if delete(t.ending, uid); now.After(at) {
		t.past[uid] = true
		return
	}
	t.ending[uid] = &ending{at, obj}
	t.wake(now)
}

// wake sets the timer for the first pod of ending. t.mu is held.
func (t *tally) wake(now time.Time) {
	if t.timer != nil {
		t.timer.Stop()
		t.timer = nil
	}
	var first time.Time
	for _, e := range t.ending {
		if first.IsZero() || e.at.Before(first) {
			first = e.at
		}
	}
	if !first.IsZero() && t.ctx.Err() == nil {
		t.timer = time.AfterFunc(first.Sub(now)+time.Millisecond, t.expire)
	}
}

// expire stops counting pods whose time is over.
func (t *tally) expire() {
	now, c := time.Now(), special[corev1.Resource("pods")]
	t.mu.Lock()
	for uid, e := range t.ending {
		if now.After(e.at) {
			subtract(t.used, t.usage(c, e.pod, now))
			t.past[uid] = true
			add(t.used, t.usage(c, e.pod, now))
			delete(t.ending, uid)
		}
	}
	t.wake(now)
	t.mu.Unlock()
	t.changed()
}

// stop ends the tally.
func (t *tally) stop() {
	t.end()
	t.mu.Lock()
	defer t.mu.Unlock()
	clear(t.ending)
	t.wake(time.Time{})
}

// total returns a copy of what is used.
func (t *tally) total() corev1.ResourceList {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.used.DeepCopy()
}

// excess is what a write would exceed.
type excess struct {
	asked, used, limit corev1.ResourceList // of the exceeded resources only
	// moved is closed when it is worth another try: other writes under way have reserved what is lacking, and may not store it after
	// all. nil: what is stored is too much already.
	moved <-chan struct{}
}

// reserve takes r for an object, or returns what would be exceeded. dry: it only looks.
func (t *tally) reserve(uid types.UID, r *reservation, hard corev1.ResourceList, dry bool) *excess {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	sum := t.used.DeepCopy()
	for of, other := range t.reserved {
		if now.After(other.until) {
			delete(t.reserved, of)
		} else if of != uid { // a write that is tried again replaces what it has reserved
			add(sum, other.takes)
		}
	}
	x := over(r.takes, sum, hard)
	switch {
	case x == nil && !dry:
		t.reserved[uid] = r
	case x != nil && over(r.takes, t.used, hard) == nil:
		if t.moved == nil {
			t.moved = make(chan struct{})
		}
		x.moved = t.moved
	}
	return x
}

// reserves reports whether something is reserved for an object.
func (t *tally) reserves(uid types.UID) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.reserved[uid] != nil
}

// patience is how long a write waits for others that have reserved what it lacks: longer than a commit usually takes.
const patience = time.Second

// await is reserve that waits for other writes before it refuses.
func (t *tally) await(ctx context.Context, uid types.UID, r *reservation, hard corev1.ResourceList, dry bool) *excess {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		x := t.reserve(uid, r, hard, dry)
		if x == nil || x.moved == nil {
			return x
		}
		select {
		case <-x.moved:
		case <-ctx.Done():
			return x
		}
	}
}

// over returns what takes beside used exceeds of hard, nil for nothing.
func over(takes, used, hard corev1.ResourceList) *excess {
	var x *excess
	for name, v := range takes {
		have, counted := used[name]
		most, limited := hard[name]
		if !counted || !limited {
			continue
		}
		with := have.DeepCopy()
		with.Add(v)
		if with.Cmp(most) > 0 {
			if x == nil {
				x = &excess{asked: corev1.ResourceList{}, used: corev1.ResourceList{}, limit: corev1.ResourceList{}}
			}
			x.asked[name], x.used[name], x.limit[name] = v, have, most
		}
	}
	return x
}

// wakeWriters lets writes that wait try again. t.mu is held.
func (t *tally) wakeWriters() {
	if t.moved != nil {
		close(t.moved)
		t.moved = nil
	}
}

// release ends a reservation, if it is still r.
func (t *tally) release(uid types.UID, r *reservation) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.reserved[uid] == r {
		delete(t.reserved, uid)
		t.wakeWriters()
	}
}
