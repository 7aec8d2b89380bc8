package control

import (
	"container/heap"
	"context"
	"sync"
	"time"
)

// queue holds the keys that want work. A key is in it at most once and is never handed to two workers at a time; one that is
// added while a worker has it comes again afterwards. It has no goroutine and no periodic timer: when nothing is due, nothing
// runs.
//
// It is not client-go's workqueue, although that has the same first three rules:
//
//   - A delaying workqueue has a goroutine and a ticker of ten seconds for as long as it lives, also with nothing due. A dozen
//     loops would wake an idle board more than once a second.
//   - Its Get waits without a context, so that each loop would need one goroutine more that shuts it down.
//   - Its AddAfter keeps the earliest time for a key, and nothing withdraws one. The result of Reconcile replaces what an earlier
//     call asked for: a Deployment that has finished must not come up again at its old deadline.
//   - Its rate limiter does not distinguish a conflict, where trying again at once is right, from an error.
type queue struct {
	mu     sync.Mutex          // guards all fields but signal
	ready  []Key               // in order of arrival
	queued map[Key]bool        // members of ready, and active keys that must come again
	active map[Key]bool        // handed out, not yet done
	due    delayed             // keys that come later, the earliest first
	at     map[Key]*delayedKey // the members of due, by key: a key has at most one deadline
	timer  *time.Timer         // fires at due[0]; nil when due is empty
	signal chan struct{}       // one token while ready may hold something
}

type delayedKey struct {
	key   Key
	when  time.Time
	index int
}

func newQueue() *queue {
	return &queue{
		queued: map[Key]bool{},
		active: map[Key]bool{},
		at:     map[Key]*delayedKey{},
		signal: make(chan struct{}, 1),
	}
}

// add makes the key ready now.
func (q *queue) add(k Key) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.addLocked(k)
}

func (q *queue) addLocked(k Key) {
	if q.queued[k] {
		return
	}
	q.queued[k] = true
	if q.active[k] {
		return
	}
	q.ready = append(q.ready, k)
	q.wake()
}

func (q *queue) wake() {
	select {
	case q.signal <- struct{}{}:
	default:
	}
}

// next waits for a key and hands it to the caller, who returns it with done; ok is false when ctx has ended.
func (q *queue) next(ctx context.Context) (k Key, ok bool) {
	for {
		if ctx.Err() != nil {
			return k, false
		}
		q.mu.Lock()
		if len(q.ready) > 0 {
			k = q.ready[0]
			q.ready[0] = Key{}
			q.ready = q.ready[1:]
			delete(q.queued, k)
			q.active[k] = true
			if len(q.ready) > 0 {
				q.wake() // for the next worker
			}
			q.mu.Unlock()
			return k, true
		}
		q.mu.Unlock()
		select {
		case <-ctx.Done():
			return k, false
		case <-q.signal:
		}
	}
}

// done returns a key that next handed out. With after > 0 it comes again after that time at the latest; this replaces an earlier
// deadline of the key. With after 0 it comes again only when it is added.
func (q *queue) done(k Key, after time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.active, k)
	if d := q.at[k]; d != nil {
		heap.Remove(&q.due, d.index)
		delete(q.at, k)
	}
	if q.queued[k] {
		q.ready = append(q.ready, k)
		q.wake()
	}
	if after > 0 {
		d := &delayedKey{key: k, when: time.Now().Add(after)}
		q.at[k] = d
		heap.Push(&q.due, d)
	}
	q.arm()
}

// arm sets the timer for the earliest delayed key, and leaves none when there is no such key. q.mu is held.
func (q *queue) arm() {
	if q.timer != nil {
		q.timer.Stop()
		q.timer = nil
	}
	if len(q.due) > 0 {
		q.timer = time.AfterFunc(time.Until(q.due[0].when), q.fire)
	}
}

func (q *queue) fire() {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	for len(q.due) > 0 && !q.due[0].when.After(now) {
		d := heap.Pop(&q.due).(*delayedKey)
		delete(q.at, d.key)
		q.addLocked(d.key)
	}
	q.arm()
}

// stop ends the timer and drops all deadlines: after it the queue starts nothing.
func (q *queue) stop() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.timer != nil {
		q.timer.Stop()
	}
	q.due, q.at, q.timer = nil, map[Key]*delayedKey{}, nil
}

type delayed []*delayedKey

func (d delayed) Len() int           { return len(d) }
func (d delayed) Less(i, j int) bool { return d[i].when.Before(d[j].when) }
func (d delayed) Swap(i, j int) {
	d[i], d[j] = d[j], d[i]
	d[i].index, d[j].index = i, j
}
func (d *delayed) Push(x any) {
	k := x.(*delayedKey)
	k.index = len(*d)
	*d = append(*d, k)
}
func (d *delayed) Pop() any {
	old := *d
	k := old[len(old)-1]
	old[len(old)-1] = nil
	*d = old[:len(old)-1]
	return k
}
