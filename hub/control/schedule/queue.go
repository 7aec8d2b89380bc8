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

const (
	// These bound the time between two attempts for a pod. It doubles with each, so that a fleet that changes all the time does not
	// make the scheduler try hopeless pods all the time.
	firstBackoff = 100 * time.Millisecond
	maxBackoff   = 10 * time.Second
	// flushAfter is how long a pod waits for a change at most: the rules of which change helps whom are many, and a mistake in one
	// must not cost a pod its start.
	flushAfter = 5 * time.Minute
	// maxChecks bounds how many comparisons of a pod with a changed node are made at once. Beyond, pods are tried without.
	maxChecks = 20_000
)

type place int

const (
	ready  place = iota // to be tried as soon as possible
	later               // to be tried when its time comes
	parked              // to be tried when the fleet changes, or when its time comes
	tried               // in the round that is going on
	places
)

// entry is a pod that waits for a node. It is owned by Run's goroutine.
type entry struct {
	pod      *corev1.Pod
	prepared *sched.Pod // of pod; both are replaced together

	place      place
	index      int          // in ready, or in its group's heap
	alarmIndex int          // in alarms; -1 when it has no alarm
	alarm      time.Time    // when it is ready whatever happens; set for later and parked
	seq        int64        // order of arrival among equal priorities; behind renews it
	attempts   int          // without success, since the pod last changed
	due        time.Time    // the earliest attempt that a change may bring
	class      string       // of prepared; "" when it is not worked out
	group      string       // key of its group while it is parked
	cures      sched.Change // which changes may help, by the last attempt
	nominated  string       // the node that is promised to it, "" for none
	flushed    bool         // nothing but time brings the next attempt, or has brought the one that is going on
	wrote      time.Time    // when the condition was last written
	reported   string       // the message of the last Event
	reportedAt time.Time    // when it was emitted; zero: never
}

func (e *entry) priority() int32 {
	if p := e.pod.Spec.Priority; p != nil {
		return *p
	}
	return 0
}

// classOf returns the class, which is worked out when it is first needed.
func (e *entry) classOf() string {
	if e.class == "" {
		e.class = e.prepared.Class()
	}
	return e.class
}

// group is parked pods that all filters treat alike: what helps the first helps one of them. Those with a nomination are
// alone.
type group struct {
	waiting readyHeap // never empty
	cures   sched.Change
}

// queue holds the pods that wait. Its methods take the time: it has no clock.
type queue struct {
	entries map[types.UID]*entry // all pods that wait, whatever their place
	count   [places]int
	ready   readyHeap         // by priority, then seq
	groups  map[string]*group // all that are parked, by class
	alarms  alarmHeap         // later and parked
	seq     int64             // the last one handed out; grows only
}

func newQueue() *queue { return &queue{entries: map[types.UID]*entry{}, groups: map[string]*group{}} }

// set adds a pod, or replaces its older version. It is tried at once when its spec, labels or architectures have changed.
func (q *queue) set(pod *corev1.Pod) *entry {
	e := q.entries[pod.UID]
	if e == nil {
		q.seq++
		e = &entry{pod: pod, prepared: sched.NewPod(pod), seq: q.seq, index: -1, alarmIndex: -1, place: tried}
		q.entries[pod.UID] = e
		q.count[tried]++
		q.put(e, ready)
		return e
	}
	changed := e.pod.Generation != pod.Generation || !maps.Equal(e.pod.Labels, pod.Labels) ||
		e.pod.Annotations[kube.ArchitecturesAnnotation] != pod.Annotations[kube.ArchitecturesAnnotation]
	priority := e.priority()
	e.pod, e.prepared = pod, sched.NewPod(pod)
	if e.place == ready && e.priority() != priority {
		heap.Fix(&q.ready, e.index)
	}
	if changed {
		e.class = ""
		e.attempts = 0
		if e.place != tried {
			q.put(e, ready)
		}
	}
	return e
}

func (q *queue) remove(uid types.UID) {
	if e := q.entries[uid]; e != nil {
		q.lift(e)
		q.count[e.place]--
		delete(q.entries, uid)
	}
}

// lift takes e out of where it is. Its place stays; the caller sets another, or removes it.
func (q *queue) lift(e *entry) {
	switch e.place {
	case ready:
		heap.Remove(&q.ready, e.index)
	case parked:
		g := q.groups[e.group]
		if heap.Remove(&g.waiting, e.index); len(g.waiting) == 0 {
			delete(q.groups, e.group)
		}
	}
	if e.alarmIndex >= 0 {
		heap.Remove(&q.alarms, e.alarmIndex)
	}
}

// put moves e to a place where no time is needed.
func (q *queue) put(e *entry, to place) {
	q.lift(e)
	q.count[e.place]--
	q.count[to]++
	e.place = to
	if to == ready {
		heap.Push(&q.ready, e)
	}
}

// delay makes e wait until a time.
func (q *queue) delay(e *entry, until time.Time) {
	q.put(e, later)
	e.alarm = until
	heap.Push(&q.alarms, e)
}

// park makes e wait for a change, and for flushAfter at most.
func (q *queue) park(e *entry, now time.Time) {
	q.put(e, parked)
	e.group = e.classOf()
	if e.nominated != "" {
		e.group = string(e.pod.UID)
	}
	g := q.groups[e.group]
	if g == nil {
		g = &group{}
		q.groups[e.group] = g
	}
	g.cures |= e.cures
	heap.Push(&g.waiting, e)
	e.alarm, e.flushed = now.Add(flushAfter), true
	heap.Push(&q.alarms, e)
}

// sooner makes a parked pod be tried at a time, if that is before what it waits for.
func (q *queue) sooner(e *entry, at time.Time) {
	if e.place == parked && at.Before(e.alarm) {
		e.alarm = at
		heap.Fix(&q.alarms, e.alarmIndex)
	}
}

// take returns up to n pods to try now, the most important first, in the order in which they came.
func (q *queue) take(now time.Time, n int) (batch []*entry) {
	for len(q.alarms) > 0 && !q.alarms[0].alarm.After(now) {
		q.put(q.alarms[0], ready)
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
	case len(q.alarms) > 0:
		return max(0, q.alarms[0].alarm.Sub(now)), true
	}
	return 0, false
}

// failed notes an attempt that found no node, or could not be written.
func (q *queue) failed(e *entry, now time.Time) {
	wait := firstBackoff << min(e.attempts, 10)
	e.attempts++
	e.due = now.Add(min(wait, maxBackoff))
}

// behind puts e after all others of equal priority: a pod that cannot be bound must not take, again and again, the room that
// another could use.
//
// e must be in no heap: it is being tried.
func (q *queue) behind(e *entry) {
	q.seq++
	e.seq = q.seq
}

// wake tries the first pod of each group that the changes may help. admits reports whether a node takes a pod now: where a refusal
// depends on nothing but nodes, it is asked about those that have changed, and a pod that fits is tried at once. All others wait for
// their back-off.
func (q *queue) wake(c *changes, admits func(e *entry, node string) bool) {
	exact := len(q.groups)*len(c.nodes) <= maxChecks
	for _, g := range q.groups {
		e := g.waiting[0]
		switch {
		case e.nominated != "" && c.nodes[e.nominated]&^sched.PodCame != 0:
			q.bring(e)
		case g.cures&c.all == 0:
		case !exact || g.cures&^sched.OfNode&c.all != 0:
			e.flushed = false
			q.sooner(e, e.due)
		default:
			for node, what := range c.nodes {
				if g.cures&what != 0 && admits(e, node) {
					q.bring(e)
					break
				}
			}
		}
	}
}

// bring makes e ready.
func (q *queue) bring(e *entry) {
	e.flushed = false
	q.put(e, ready)
}

// follow makes the next pods of a class ready, when n of it have found what they wanted: there may be more where that came from.
func (q *queue) follow(class string, n int) {
	for range 2 * n {
		g := q.groups[class]
		if g == nil {
			return
		}
		q.bring(g.waiting[0])
	}
}

// refresh has the messages of parked pods made again, at most once in rewriteEvery each: nodes have changed, and the messages
// count them.
func (q *queue) refresh() {
	for _, g := range q.groups {
		for _, e := range g.waiting {
			at := e.wrote.Add(rewriteEvery)
			if at.Before(e.due) {
				at = e.due
			}
			q.sooner(e, at)
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
func (h *readyHeap) Pop() any     { e := pop((*[]*entry)(h)); e.index = -1; return e }

type alarmHeap []*entry

func (h alarmHeap) Len() int           { return len(h) }
func (h alarmHeap) Less(i, j int) bool { return h[i].alarm.Before(h[j].alarm) }
func (h alarmHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].alarmIndex, h[j].alarmIndex = i, j
}
func (h *alarmHeap) Push(x any) { e := x.(*entry); e.alarmIndex = len(*h); *h = append(*h, e) }
func (h *alarmHeap) Pop() any   { e := pop((*[]*entry)(h)); e.alarmIndex = -1; return e }

func pop(h *[]*entry) *entry {
	last := len(*h) - 1
	e := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return e
}
