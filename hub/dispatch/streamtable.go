package dispatch

import (
	"sync"

	"petrel.dev/petrel/internal/wire"
)

// streamTable finds the stream of a frame, from any goroutine.
type streamTable struct {
	mu   sync.RWMutex
	ends map[string]*wire.Endpoint // by node id and stream; guarded by mu
}

func (t *streamTable) add(node, stream string, e *wire.Endpoint) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ends == nil {
		t.ends = map[string]*wire.Endpoint{}
	}
	t.ends[node+"/"+stream] = e
}

func (t *streamTable) remove(node, stream string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.ends, node+"/"+stream)
}

func (t *streamTable) deliver(node, stream string, frame []byte) {
	t.mu.RLock()
	e := t.ends[node+"/"+stream]
	t.mu.RUnlock()
	if e != nil {
		e.Deliver(frame)
	}
}
