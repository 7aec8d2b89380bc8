package dispatch

import (
	"sync"
	"time"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/wire"
)

// maxFrames is how many frames of one node may wait for the loop; a node that sends more has some dropped, and repeats
// them. Stream frames do not pass the loop: their streams take them at once.
const (
	maxFrames = 128
	// So many bytes of them: the pipe's window four times over, and for a device that is not known a large hello.
	maxFrameBytes    = 1 << 20
	maxStrangerBytes = 128 << 10
)

// inbox collects what other goroutines have for the loop. Its methods never block.
type inbox struct {
	ready   chan struct{}               // has room for one; a signal that something is there
	seen    func(node string) time.Time // of the bus
	known   func(node string) bool      // set before Run, not changed after
	streams streamTable

	mu      sync.Mutex
	changes []control.Change // guarded by mu, as all that follows
	frames  []inFrame
	waiting map[string]waiting // of frames, by node
	calls   []call
	bus     *bool // the last state of the bus; nil: has not changed
}

// waiting counts what waits of one node.
type waiting struct{ frames, bytes int }

// call is a function that the loop runs for others.
type call struct {
	node *node // that it works on; nil: none
	f    func(now time.Time)
}

// inFrame is a frame from the bus.
type inFrame struct {
	topic string
	b     []byte
	// seen goes with last words: when the node was last seen before. The bus sends them for it, possibly long after.
	seen time.Time
}

func newInbox(seen func(node string) time.Time) *inbox {
	return &inbox{ready: make(chan struct{}, 1), seen: seen, waiting: map[string]waiting{}}
}

func (i *inbox) signal() {
	select {
	case i.ready <- struct{}{}:
	default:
	}
}

func (i *inbox) change(c control.Change) {
	i.mu.Lock()
	i.changes = append(i.changes, c)
	i.mu.Unlock()
	i.signal()
}

func (i *inbox) call(c call) {
	i.mu.Lock()
	i.calls = append(i.calls, c)
	i.mu.Unlock()
	i.signal()
}

func (i *inbox) connected(ok bool) {
	i.mu.Lock()
	i.bus = &ok
	i.mu.Unlock()
	i.signal()
}

func (i *inbox) frame(topic string, b []byte) {
	_, node, stream, kind, ok := wire.ParseTopic(topic)
	if !ok || len(b) > wire.MaxFrame || kind == wire.TopicDown || kind == wire.TopicStreamDown {
		return
	}
	if kind == wire.TopicStreamUp {
		i.streams.deliver(node, stream, b)
		return
	}
	f := inFrame{topic: topic, b: b}
	if kind == wire.TopicLive {
		f.seen = i.seen(node)
	}
	most := maxFrameBytes
	if i.known != nil && !i.known(node) {
		most = maxStrangerBytes
	}
	i.mu.Lock()
	if w := i.waiting[node]; w.frames < maxFrames && w.bytes+len(b) <= most {
		i.waiting[node] = waiting{w.frames + 1, w.bytes + len(b)}
		i.frames = append(i.frames, f)
	}
	i.mu.Unlock()
	i.signal()
}

// take returns all that is there, and removes it.
func (i *inbox) take() (changes []control.Change, frames []inFrame, calls []call, bus *bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	changes, frames, calls, bus = i.changes, i.frames, i.calls, i.bus
	i.changes, i.frames, i.calls, i.bus = nil, nil, nil, nil
	clear(i.waiting)
	return changes, frames, calls, bus
}
