package podset

import (
	"sync"
	"time"

	"petrel.dev/petrel/hub/control"
)

// How long a failed pod stays before it is deleted and replaced: nothing the first time, then at least so long since the deletion
// before, doubling.
const (
	firstHold   = time.Second
	longestHold = 15 * time.Minute
)

// Backoff keeps an owner and a place that refuses its pods (a node, a name) from replacing them in a tight circle.
type Backoff struct {
	mu sync.Mutex
	// m is by owner and place. An entry ends with its owner, or once it has been quiet for twice longestHold. Guarded by mu.
	m map[control.Key]map[string]hold
}

type hold struct {
	d     time.Duration
	since time.Time // of the last deletion
}

// NewBackoff returns a Backoff in which nothing waits.
func NewBackoff() *Backoff { return &Backoff{m: map[control.Key]map[string]hold{}} }

// Wait returns how long a failed pod in the place has to stay.
func (b *Backoff) Wait(key control.Key, place string, now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	h, ok := b.m[key][place]
	if !ok {
		return 0
	}
	return max(0, h.since.Add(h.d).Sub(now))
}

// Next notes that a failed pod in the place is deleted now.
func (b *Backoff) Next(key control.Key, place string, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	of := b.m[key]
	if of == nil {
		of = map[string]hold{}
		b.m[key] = of
	}
	for n, h := range of {
		if now.Sub(h.since) > 2*longestHold {
			delete(of, n)
		}
	}
	d := firstHold
	if h, ok := of[place]; ok {
		d = min(longestHold, 2*h.d)
	}
	of[place] = hold{d, now}
}

// Forget drops what is kept about an owner that is gone.
func (b *Backoff) Forget(key control.Key) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.m, key)
}
