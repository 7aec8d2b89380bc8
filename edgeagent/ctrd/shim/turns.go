package shim

import (
	"context"
	"fmt"
	"sync"
)

// Turns keeps starts of containers and deletions of tasks apart, pod by pod: a start waits for deletions that are under way, and a
// deletion that comes during a start is done at its end. The zero value is ready.
type Turns struct {
	mu   sync.Mutex
	pods map[string]*turn // by UID; only those of which something is under way; guarded by mu
}

// turn is what is under way for one pod. Its fields are guarded by Turns.mu.
type turn struct {
	starts, deletions int
	idle              chan struct{} // closed when deletions becomes 0; nil while it is
	later             []func()      // deletions that wait for the starts
}

// of returns what is under way for a pod. The caller holds mu, and counts something before it gives mu back.
func (t *Turns) of(podUID string) *turn {
	if t.pods == nil {
		t.pods = map[string]*turn{}
	}
	if t.pods[podUID] == nil {
		t.pods[podUID] = &turn{}
	}
	return t.pods[podUID]
}

// Start waits until nothing of a pod is being deleted. Until done is called, nothing is.
func (t *Turns) Start(ctx context.Context, podUID string) (done func(), err error) {
	for {
		t.mu.Lock()
		p := t.of(podUID)
		if p.deletions == 0 {
			p.starts++
			t.mu.Unlock()
			return func() { t.started(podUID, p) }, nil
		}
		idle := p.idle
		t.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("an ended container of the pod is still being deleted: %w", ctx.Err())
		case <-idle:
		}
	}
}

// started ends a start, and does the deletions that have waited for it.
func (t *Turns) started(podUID string, p *turn) {
	t.mu.Lock()
	p.starts--
	var later []func()
	if p.starts == 0 {
		later, p.later = p.later, nil
	}
	if len(later) == 0 {
		t.drop(podUID, p)
		t.mu.Unlock()
		return
	}
	p.begin()
	t.mu.Unlock()
	defer t.deleted(podUID, p)
	for _, f := range later {
		f()
	}
}

// Delete runs f, which deletes a task of a pod: at once, or at the end of a start that is under way.
func (t *Turns) Delete(podUID string, f func()) {
	t.mu.Lock()
	p := t.of(podUID)
	if p.starts > 0 {
		p.later = append(p.later, f)
		t.mu.Unlock()
		return
	}
	p.begin()
	t.mu.Unlock()
	defer t.deleted(podUID, p)
	f()
}

// begin counts a deletion. The caller holds mu.
func (p *turn) begin() {
	if p.deletions == 0 {
		p.idle = make(chan struct{})
	}
	p.deletions++
}

// deleted ends a deletion.
func (t *Turns) deleted(podUID string, p *turn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p.deletions--; p.deletions == 0 {
		close(p.idle)
		p.idle = nil
		t.drop(podUID, p)
	}
}

// drop forgets a pod of which nothing is under way. The caller holds mu.
func (t *Turns) drop(podUID string, p *turn) {
	if p.starts == 0 && p.deletions == 0 {
		delete(t.pods, podUID)
	}
}
