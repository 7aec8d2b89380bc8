package lean

import (
	"runtime"
	"runtime/debug"
	"sync"
	"time"
)

// How much the heap may grow between two collections. At rest, by half: with a live heap of 10 MiB this is 5 MiB less
// than Go's own choice, for hardly any work, since hardly anything is allocated. At work, as Go has it: collecting twice
// as often costs a hub that is created into a fifth of its throughput.
const (
	percentAtRest = 50
	percentAtWork = 100
)

// Collections that follow each other within atWork mean work; one that comes later than atRest after its forerunner means
// rest. The gap between them keeps a change of the percentage from undoing itself.
const (
	atWork = time.Second
	atRest = 6 * time.Second
)

// pace decides on the percentage from when collections happen. The zero value is at rest.
type pace struct {
	last time.Time
	busy bool
}

// collected returns the percentage for the time from now on, now being the end of a collection.
func (p *pace) collected(now time.Time) int {
	if !p.last.IsZero() {
		switch gap := now.Sub(p.last); {
		case gap < atWork:
			p.busy = true
		case gap > atRest:
			p.busy = false
		}
	}
	p.last = now
	if p.busy {
		return percentAtWork
	}
	return percentAtRest
}

// pacer applies a pace to this process. It has no clock and no goroutine: the collector itself wakes it, by finding an
// object that nobody holds.
type pacer struct {
	mu      sync.Mutex
	pace    pace
	percent int
	before  int // what the process had
	stopped bool
}

// startPacer sets the percentage for a process at rest and follows its work until stop, which restores what was before.
func startPacer() *pacer {
	p := &pacer{percent: percentAtRest}
	p.before = debug.SetGCPercent(p.percent)
	p.arm()
	return p
}

// arm leaves an object behind whose cleanup shows the end of the next collection. It holds a pointer, because the collector lumps
// objects without one together.
func (p *pacer) arm() { runtime.AddCleanup(&struct{ p *pacer }{p}, (*pacer).wake, p) }

func (p *pacer) wake() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped {
		return
	}
	if percent := p.pace.collected(time.Now()); percent != p.percent {
		p.percent = percent
		debug.SetGCPercent(percent)
	}
	p.arm()
}

func (p *pacer) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stopped = true
	debug.SetGCPercent(p.before)
}
