package dispatch

import (
	"context"
	"sync"
	"time"
)

// presence is which nodes are connected, for other goroutines.
type presence struct {
	lastSeen func(device string) time.Time // of the bus; set before Run, never nil after

	mu       sync.Mutex
	nodes    map[string]seen           // by Node name; guarded by mu, as the next two
	watchers map[int]func(node string) // called without mu
	next     int                       // id of the next watcher
}

// seen is the state of one node's connection.
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

// of returns the state of a node's connection.
func (p *presence) of(node string) seen {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.nodes[node]
}

// watch calls f with each node whose presence changes, until ctx ends.
func (p *presence) watch(ctx context.Context, f func(node string)) {
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
