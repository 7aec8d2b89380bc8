package daemonset

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

// backoff keeps a DaemonSet and a node that refuses its pods from replacing them in a tight circle.
type backoff struct {
	mu sync.Mutex
	// m is by DaemonSet and node. An entry ends with its DaemonSet, or once it has been quiet for twice longestHold. Guarded by mu.
	m map[control.Key]map[string]hold
}

type hold struct {
	d     time.Duration
	since time.Time // of the last deletion
}

func newBackoff() *backoff { return &backoff{m: map[control.Key]map[string]hold{}} }

// wait returns how long a failed pod on the node has to stay.
func (b *backoff) wait(key control.Key, node string, now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	h, ok := b.m[key][node]
	if !ok {
		return 0
	}
	return max(0, h.since.Add(h.d).Sub(now))
}

// next notes that a failed pod on the node is deleted now.
func (b *backoff) next(key control.Key, node string, now time.Time) {
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
	if h, ok := of[node]; ok {
		d = min(longestHold, 2*h.d)
	}
	of[node] = hold{d, now}
}

// forget drops what is kept about a DaemonSet that is gone.
func (b *backoff) forget(key control.Key) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.m, key)
}
