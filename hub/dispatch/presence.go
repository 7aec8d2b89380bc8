package dispatch

import (
	"context"
	"sync"
	"time"
)

// presence is who is connected, for others to ask.
type presence struct {
	mu       sync.Mutex
	nodes    map[string]seen
	watchers map[int]func(node string)
	next     int
}

type seen struct {
	connected bool
	last      time.Time
}

func (p *presence) init() {
	p.nodes, p.watchers = map[string]seen{}, map[int]func(string){}
}

func (p *presence) set(node string, connected bool, now time.Time) {
	p.mu.Lock()
	p.nodes[node] = seen{connected, now}
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

// Presence tells whether a node has an open session, and when it last had one: now for a connected one, the zero time
// for one not heard of since this hub started.
func (d *Dispatch) Presence(node string) (connected bool, lastSeen time.Time) {
	d.pres.mu.Lock()
	defer d.pres.mu.Unlock()
	s := d.pres.nodes[node]
	if s.connected {
		return true, time.Now()
	}
	return false, s.last
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
