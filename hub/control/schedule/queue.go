package schedule

import (
	"container/heap"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/sched"
)

// These bound the time between two attempts for a pod. It doubles with each, so that a fleet that changes all the time does not
// make the scheduler try hopeless pods all the time.
const (
	firstBackoff = 100 * time.Millisecond
	maxBackoff   = 10 * time.Second
)

type place int

const (
	ready  place = iota // to be tried as soon as possible
	later               // to be tried when its time comes
	parked              // to be tried when the fleet changes
	tried               // in the round that is going on
)

// entry is a pod that waits for a node. It is owned by Run's goroutine.
type entry struct {
	pod      *corev1.Pod
	prepared *sched.Pod // of pod; both are replaced together

	place      place
	index      int       // in its heap; -1 when it is in none
	seq        int64     // order of arrival among equal priorities; behind renews it
	attempts   int       // without success, since the pod last changed
	notYet     time.Time // the earliest next attempt
	due        time.Time // the earliest attempt that a change may bring; before notYet while only the condition waits to be written
	wrote      time.Time // when the condition was last written
	reported   string    // the message of the last Event
	reportedAt time.Time // when it was emitted; zero: never
}

func (e *entry) priority() int32 {
	if p := e.pod.Spec.Priority; p != nil {
		return *p
	}
	return 0
}

// queue holds the pods that wait. Its methods take the time: it has no clock.
type queue struct {
	entries map[types.UID]*entry // all pods that wait, whatever their place
	ready   readyHeap            // by priority, then seq
	later   laterHeap            // by notYet
	seq     int64                // the last one handed out; grows only
}

func newQueue() *queue { return &queue{entries: map[types.UID]*entry{}} }

// set adds a pod, or replaces its older version. It is tried at once when its spec, labels or architectures have changed.
func (q *queue) set(pod *corev1.Pod) {
	e := q.entries[pod.UID]
	if e == nil {
		q.seq++
		e = &entry{pod: pod, prepared: sched.NewPod(pod), seq: q.seq}
		q.entries[pod.UID] = e
		q.put(e, ready)
		return
	}
	changed := e.pod.Generation != pod.Generation || !maps.Equal(e.pod.Labels, pod.Labels) ||
		e.pod.Annotations[kube.ArchitecturesAnnotation] != pod.Annotations[kube.ArchitecturesAnnotation]
	priority := e.priority()
	e.pod, e.prepared = pod, sched.NewPod(pod)
	if e.place == ready && e.priority() != priority {
		heap.Fix(&q.ready, e.index)
	}
	if changed && e.place != tried {
		e.attempts = 0
		q.put(e, ready)
	}
}

func (q *queue) remove(uid types.UID) {
	if e := q.entries[uid]; e != nil {
		q.lift(e)
		delete(q.entries, uid)
	}
}

// lift takes e out of its heap.
func (q *queue) lift(e *entry) {
	switch {
	case e.index < 0:
	case e.place == ready && e.index < len(q.ready) && q.ready[e.index] == e:
		heap.Remove(&q.ready, e.index)
	case e.place == later && e.index < len(q.later) && q.later[e.index] == e:
		heap.Remove(&q.later, e.index)
	}
	e.index = -1
}

func (q *queue) put(e *entry, to place) {
	q.lift(e)
	e.place = to
	switch to {
	case ready:
		heap.Push(&q.ready, e)
	case later:
		heap.Push(&q.later, e)
	}
}

// take returns up to n pods to try now, the most important first, in the order in which they came.
func (q *queue) take(now time.Time, n int) (batch []*entry) {
	for len(q.later) > 0 && !q.later[0].notYet.After(now) {
		q.put(q.later[0], ready)
	}
	for len(q.ready) > 0 && len(batch) < n {
		e := q.ready[0]
		q.put(e, tried)
		batch = append(batch, e)
	}
	return batch
}

// next returns how long until take returns a pod; ok is false when only a change can make one ready.
func (q *queue) next(now time.Time) (wait time.Duration, ok bool) {
	switch {
	case len(q.ready) > 0:
		return 0, true
	case len(q.later) > 0:
		return max(0, q.later[0].notYet.Sub(now)), true
	}
	return 0, false
}

// failed notes an attempt that found no node, or could not be written, and returns when the next may be.
func (q *queue) failed(e *entry, now time.Time) {
	wait := firstBackoff << min(e.attempts, 10)
	e.attempts++
	e.due = now.Add(min(wait, maxBackoff))
	e.notYet = e.due
}

// behind puts e after all others of equal priority: a pod that cannot be bound must not take, again and again, the room that
// another could use. The caller puts e into a heap afterwards.
func (q *queue) behind(e *entry) {
	q.lift(e)
	q.seq++
	e.seq = q.seq
}

// wake makes all pods that wait for a change be tried again, each at its earliest next attempt.
func (q *queue) wake(now time.Time) {
	for _, e := range q.entries {
		if e.place != parked && (e.place != later || !e.due.Before(e.notYet)) {
			continue
		}
		q.lift(e)
		e.notYet = e.due
		if e.notYet.After(now) {
			q.put(e, later)
		} else {
			q.put(e, ready)
		}
	}
}

type readyHeap []*entry

func (h readyHeap) Len() int { return len(h) }
func (h readyHeap) Less(i, j int) bool {
	if a, b := h[i].priority(), h[j].priority(); a != b {
		return a > b
	}
	return h[i].seq < h[j].seq
}
func (h readyHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i]; h[i].index, h[j].index = i, j }
func (h *readyHeap) Push(x any)   { e := x.(*entry); e.index = len(*h); *h = append(*h, e) }
func (h *readyHeap) Pop() any     { return pop((*[]*entry)(h)) }

type laterHeap []*entry

func (h laterHeap) Len() int           { return len(h) }
func (h laterHeap) Less(i, j int) bool { return h[i].notYet.Before(h[j].notYet) }
func (h laterHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i]; h[i].index, h[j].index = i, j }
func (h *laterHeap) Push(x any)        { e := x.(*entry); e.index = len(*h); *h = append(*h, e) }
func (h *laterHeap) Pop() any          { return pop((*[]*entry)(h)) }

func pop(h *[]*entry) *entry {
	last := len(*h) - 1
	e := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	e.index = -1
	return e
}
