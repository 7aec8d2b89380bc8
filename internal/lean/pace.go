package lean

import (
	"log/slog"
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

// A pass at rest comes when the process has grown by a quarter, and by minGrowth, since the pass before, but not within minBetween of that: what
// a process at a steady, light work uses again and again is not given back all the time.
const (
	minGrowth  = 4 << 20 // bytes
	minBetween = 5 * time.Minute
)

// passDue reports whether memory is to be given back to the kernel, which was done last some time ago and left so many bytes resident.
func passDue(ago time.Duration, left, now int) bool {
	return ago >= minBetween && now-left >= max(minGrowth, left/4)
}

// pacer applies a pace to this process, and gives memory back when work has ended. It has no clock and no goroutine of its own: the
// collector itself wakes it, by finding an object that nobody holds. Without any work that is every two minutes.
type pacer struct {
	log *slog.Logger // set by startPacer, never nil

	mu      sync.Mutex
	pace    pace      // guarded by mu, as all that follows
	percent int       // what the collector has
	before  int       // what the process had
	at      time.Time // of the last pass; zero while those of the first minutes are not over
	left    int       // bytes that were resident after it
	skip    bool      // the next collection is a pass' own, and says nothing of work
	stopped bool
}

// startPacer sets the percentage for a process at rest and follows its work until stop, which restores what was before.
func startPacer(log *slog.Logger) *pacer {
	p := &pacer{log: log, percent: percentAtRest}
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
	defer p.arm()
	if p.skip {
		p.skip = false
		return
	}
	now := time.Now()
	if percent := p.pace.collected(now); percent != p.percent {
		p.percent = percent
		debug.SetGCPercent(percent)
	}
	if !p.pace.busy && !p.at.IsZero() && passDue(now.Sub(p.at), p.left, resident()) {
		p.at, p.skip = now, true
		go p.pass() // other cleanups wait for this one, and must not wait for a collection
	}
}

// pass gives back what work has left behind.
func (p *pacer) pass() {
	GiveBack(p.log)
	p.passed()
}

// passed notes that memory has been given back now.
func (p *pacer) passed() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.at, p.left = time.Now(), resident()
}

func (p *pacer) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stopped = true
	debug.SetGCPercent(p.before)
}
