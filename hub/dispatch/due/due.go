// Package due keeps when each of many keys has something to do, so that a loop works on those whose time has come and looks at no
// other: with a thousand nodes connected, hundreds of times a second some node's has.
package due

import (
	"container/heap"
	"time"
)

// Times has the next time of each key. It is not safe for concurrent use; the zero value is not usable, see New.
type Times[K comparable] struct {
	next map[K]time.Time // of each key that has one
	heap entries[K]      // has each key's next time, and earlier or later ones that count no more
}

// New returns Times without a key.
func New[K comparable]() *Times[K] { return &Times[K]{next: map[K]time.Time{}} }

// Add makes a key due at t or before; zero changes nothing.
func (x *Times[K]) Add(k K, t time.Time) {
	if at, ok := x.next[k]; t.IsZero() || ok && !t.Before(at) {
		return
	}
	x.next[k] = t
	heap.Push(&x.heap, entry[K]{t, k})
}

// Next returns when the first key is due; zero: none has a time.
func (x *Times[K]) Next() time.Time {
	for len(x.heap) > 0 {
		if x.current(x.heap[0]) {
			return x.heap[0].at
		}
		heap.Pop(&x.heap)
	}
	x.heap = nil
	return time.Time{}
}

// Take returns the keys that are due. They have no other time until one is added.
func (x *Times[K]) Take(now time.Time) (due []K) {
	for len(x.heap) > 0 && !x.heap[0].at.After(now) {
		e := heap.Pop(&x.heap).(entry[K])
		if x.current(e) {
			delete(x.next, e.key)
			due = append(due, e.key)
		}
	}
	return due
}

// current reports whether an entry is its key's next time: an earlier one may have come before it.
func (x *Times[K]) current(e entry[K]) bool {
	at, ok := x.next[e.key]
	return ok && at.Equal(e.at)
}

type entry[K comparable] struct {
	at  time.Time
	key K
}

// entries is a heap, the earliest first.
type entries[K comparable] []entry[K]

func (h entries[K]) Len() int           { return len(h) }
func (h entries[K]) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h entries[K]) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *entries[K]) Push(x any)        { *h = append(*h, x.(entry[K])) }
func (h *entries[K]) Pop() any {
	old := *h
	e := old[len(old)-1]
	old[len(old)-1] = entry[K]{}
	*h = old[:len(old)-1]
	return e
}
