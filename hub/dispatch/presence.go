package dispatch

import (
	"context"
	"sync"
	"time"
)

// presence is who is connected, for others to ask.
type presence struct {
	lastSeen func(device string) time.Time // of the bus; set before Run, never nil after

	mu       sync.Mutex
	nodes    map[string]seen           // by Node name; guarded by mu, as the next two
	watchers map[int]func(node string) // called without mu
	next     int                       // id of the next watcher
}

// seen is what is known of one node's connection.
type seen struct {
	connected bool
	last      time.Time // when the session ended or, while it lasts, began
	device    string    // while connected
	keepalive time.Duration
}

func (p *presence) init(lastSeen func(device string) time.Time) {
	p.lastSeen, p.nodes, p.watchers = lastSeen, map[string]seen{}, map[int]func(string){}
}

func (p *presence) set(node string, s seen) {
	p.mu.Lock()
	p.nodes[node] = s
	fs := make([]func(string), 0, len(p.watchers))
	for _, f := range p.watchers {
		fs = append(fs, f)
	}
	p.mu.Unlock()
	for _, f := range fs {
		f(node)
	}
}

func (p *presence) forget(node string) {
	p.mu.Lock()
	delete(p.nodes, node)
	p.mu.Unlock()
}

// Presence reports whether a node has an open session, and returns when it was last seen: the zero time for one not seen
// since this hub started, and now for a connected one whose packets the bus does not see.
func (d *Dispatch) Presence(node string) (connected bool, lastSeen time.Time) {
	d.pres.mu.Lock()
	s := d.pres.nodes[node]
	d.pres.mu.Unlock()
	if !s.connected {
		return false, s.last
	}
	if t := d.pres.lastSeen(s.device); !t.IsZero() {
		return true, latest(t, s.last)
	}
	return true, time.Now()
}

// Watch calls f whenever a node's presence changes, until ctx ends. It returns at once. f must not block.
func (d *Dispatch) Watch(ctx context.Context, f func(node string)) {
	p := &d.pres
	p.mu.Lock()
	defer p.mu.Unlock()
	id := p.next
	p.next++
	p.watchers[id] = f
	context.AfterFunc(ctx, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.watchers, id)
	})
}
