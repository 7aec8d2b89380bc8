package fairness

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// seats are the places of all levels together: how much is worked on at one time.
//
// A level's nominal seats are its part of the total, by its shares. Some of them it lends while it does not use them; the rest is
// guaranteed. What is guaranteed and not in use is kept free, so a level with work always gets that much at once:
//
//	used + Σ max(0, guaranteed − used of the level) ≤ total, but for the rounding up of nominal seats
//
// It is guarded by Gate.mu.
type seats struct {
	total int
	used  int // by levels that are limited
	kept  int // guaranteed to levels, and not in use
}

// level is one PriorityLevelConfiguration. All fields are guarded by Gate.mu.
type level struct {
	name       string
	exempt     bool
	alone      bool // it has one queue, which all its requests share
	reject     bool // nothing waits
	nominal    int
	guaranteed int
	most       int // seats with what it borrows; at most the total, at least one
	widest     int // seats of one request; at least one
	queued     int // requests that may wait
	ofFlow     int // of those, of one flow

	used    int
	waiting int               // requests
	flows   map[flowKey]*flow // those that have seats or wait
	turns   []*flow           // those that wait, the one whose turn is next first
}

// flowKey names a flow within its level.
type flowKey struct {
	schema string // "" in a level with one queue
	by     string // the user or namespace
	many   bool   // there are others like it
}

// flow is the requests of a level that share a queue. Guarded by Gate.mu.
type flow struct {
	key   flowKey
	used  int       // seats
	queue []*waiter // the oldest first
}

// waiter is one request. All but ready and width is guarded by Gate.mu.
type waiter struct {
	width  int
	ready  chan struct{} // closed when it has its seat; nil: it did not wait
	seated bool
	taken  int // seats, once it is seated
	tally  *tally
}

func (w *waiter) seat(g *Gate, l *level, f *flow) Seat { return Seat{g, l, f, w.taken, w.tally} }

// maxWaiting bounds how many requests wait in all levels together. Each costs a goroutine and its connection's buffers, some 16 KiB; no
// body has been read yet.
const maxWaiting = 800

// configure brings the levels up to date. g.mu is held.
func (g *Gate) configure(configs map[string]*flowcontrolv1.PriorityLevelConfiguration) {
	shares := int64(0)
	for _, p := range configs {
		shares += sharesOf(p)
	}
	g.order = g.order[:0]
	for name, p := range configs {
		l := g.levels[name]
		if l == nil {
			l = &level{name: name, flows: map[flowKey]*flow{}}
			g.levels[name] = l
		}
		l.limit(p, g.seats.total, shares)
		if !l.exempt {
			g.order = append(g.order, l)
		}
	}
	for name, l := range g.levels {
		if configs[name] != nil {
			continue
		}
		l.guaranteed = 0 // what it has goes on, and what waits gets what others leave
		if g.order = append(g.order, l); l.used == 0 && l.waiting == 0 {
			delete(g.levels, name)
			g.order = g.order[:len(g.order)-1]
		}
	}
	slices.SortFunc(g.order, func(a, b *level) int { return strings.Compare(a.name, b.name) })
	g.seats.kept = 0
	for _, l := range g.levels {
		g.seats.kept += max(0, l.guaranteed-l.used)
	}
	for _, l := range g.order {
		g.fill(l)
	}
}

// present returns l, or what has come in its place: since a request was classified, its level may have gone. g.mu is held.
func (g *Gate) present(l *level) *level {
	if now := g.levels[l.name]; now != nil {
		return now
	}
	g.levels[l.name] = l
	g.order = append(g.order, l)
	return l
}

func sharesOf(p *flowcontrolv1.PriorityLevelConfiguration) int64 {
	if c := p.Spec.Limited; c != nil {
		return int64(or(c.NominalConcurrencyShares, 30))
	}
	if c := p.Spec.Exempt; c != nil {
		return int64(or(c.NominalConcurrencyShares, 0))
	}
	return 0
}

// limit sets what a level may use of total seats, where all levels have that many shares. Products of what clients give have 64 bits:
// an int has half of that on ARMv6 and ARMv7.
func (l *level) limit(p *flowcontrolv1.PriorityLevelConfiguration, total int, shares int64) {
	l.nominal = int(roundUp(sharesOf(p)*int64(total), max(1, shares)))
	c := p.Spec.Limited
	if l.exempt = c == nil; l.exempt {
		l.guaranteed, l.most, l.widest = l.nominal, total, 1
		if e := p.Spec.Exempt; e != nil {
			l.guaranteed -= l.nominal * int(or(e.LendablePercent, 0)) / 100
		}
		return
	}
	l.guaranteed = l.nominal - l.nominal*int(or(c.LendablePercent, 0))/100
	l.most = total
	if c.BorrowingLimitPercent != nil {
		l.most = int(min(int64(total), int64(l.nominal)+int64(l.nominal)*int64(*c.BorrowingLimitPercent)/100))
	}
	l.most = max(1, l.most)
	l.reject = c.LimitResponse.Type == flowcontrolv1.LimitResponseTypeReject
	l.alone, l.queued, l.ofFlow, l.widest = true, 0, 0, roundUp(l.nominal*15, 100)
	if q := c.LimitResponse.Queuing; q != nil {
		l.alone = q.Queues <= 1
		l.queued = int(min(int64(q.Queues)*int64(q.QueueLengthLimit), math.MaxInt32))
		l.ofFlow = int(min(int64(q.HandSize)*int64(q.QueueLengthLimit), math.MaxInt32))
		l.widest = min(l.widest, l.nominal/max(1, int(q.HandSize)))
	}
	l.widest = min(max(1, l.widest), l.most)
}

func roundUp[T int | int64](n, by T) T { return (n + by - 1) / by }

func or(p *int32, otherwise int32) int32 {
	if p == nil {
		return otherwise
	}
	return *p
}

// flow returns a flow of l, which exists as long as it has seats or waits. A new one must be used at once, or forgotten.
func (l *level) flow(k flowKey) *flow {
	if f := l.flows[k]; f != nil {
		return f
	}
	f := &flow{key: k}
	l.flows[k] = f
	return f
}

func (l *level) forget(f *flow) {
	if f.used == 0 && len(f.queue) == 0 {
		delete(l.flows, f.key)
	}
}

// free returns how many seats l may have besides those that it uses.
func (s *seats) free(l *level) int {
	own := max(0, l.guaranteed-l.used)
	borrowed := min(l.most-max(l.used, l.guaranteed), s.total-s.used-s.kept)
	return min(own+max(0, borrowed), max(0, l.most-l.used))
}

// greedy reports whether a flow would have more seats than it leaves for all others: one alone gets half of what its level can have, two a
// third each, and one that has none yet finds a seat. Without it, a client whose requests take long would have all seats of its level
// until they end.
func (s *seats) greedy(l *level, f *flow, width int) bool {
	return f.key.many && f.used > 0 && f.used+width > s.free(l)
}

func (s *seats) fits(l *level, f *flow, w *waiter) bool {
	width := min(w.width, l.widest)
	return width <= s.free(l) && !s.greedy(l, f, width)
}

// seat gives a request that fits its seats. g.mu is held.
func (g *Gate) seat(l *level, f *flow, w *waiter) {
	w.seated, w.taken = true, min(w.width, l.widest)
	g.use(l, w.taken)
	f.used += w.taken
	w.tally.executing++
	w.tally.dispatched.Add(1)
}

// use changes how many seats l uses by n.
func (g *Gate) use(l *level, n int) {
	g.seats.kept -= max(0, l.guaranteed-l.used)
	l.used += n
	g.seats.used += n
	g.seats.kept += max(0, l.guaranteed-l.used)
}

// leave takes seats back, and seats those that wait: first of the same level, then of others, for seats that were borrowed.
func (g *Gate) leave(s *Seat) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s.tally.executing--
	s.flow.used -= s.width
	g.use(s.level, -s.width)
	s.level.forget(s.flow)
	if g.waiting == 0 {
		return
	}
	g.fill(s.level)
	for _, l := range g.order {
		g.fill(l)
	}
}

// queue has a request wait, or returns why there is no place for it. g.mu is held.
func (g *Gate) queue(l *level, f *flow, w *waiter) error {
	switch mine := len(f.queue); {
	case l.reject:
		w.tally.rejected[concurrencyLimit]++
	case l.waiting >= l.queued || mine >= l.ofFlow:
		w.tally.rejected[queueFull]++
	case mine > 0 && mine >= maxWaiting-g.waiting: // no more than is left for all others
		w.tally.rejected[queueFull]++
	case g.waiting >= maxWaiting:
		w.tally.rejected[queueFull]++
	default:
		w.ready = make(chan struct{})
		if mine == 0 {
			l.turns = append(l.turns, f)
		}
		f.queue = append(f.queue, w)
		l.waiting++
		g.waiting++
		w.tally.waiting++
		return nil
	}
	l.forget(f)
	if l.reject {
		return tooMany("as many requests of this kind are being worked on as may be at one time")
	}
	return tooMany("too many requests of this client, or of this kind, are waiting")
}

// fill seats those of l that wait, as far as there are seats. g.mu is held.
func (g *Gate) fill(l *level) {
	for i := 0; i < len(l.turns); {
		f := l.turns[i]
		w := f.queue[0]
		width := min(w.width, l.widest)
		if g.seats.greedy(l, f, width) {
			i++ // its turn comes when it has less, or others are done
			continue
		}
		if width > g.seats.free(l) {
			return // those behind it wait too: otherwise one that needs many seats would never get them
		}
		l.turns = slices.Delete(l.turns, i, i+1)
		g.dequeue(l, f, 0)
		if len(f.queue) > 0 {
			l.turns = append(l.turns, f)
		}
		g.seat(l, f, w)
		close(w.ready)
	}
}

// dequeue takes the i-th request of a flow out of its queue. Turns are the caller's. g.mu is held.
func (g *Gate) dequeue(l *level, f *flow, i int) {
	f.queue[i].tally.waiting--
	f.queue = slices.Delete(f.queue, i, i+1)
	l.waiting--
	g.waiting--
}

// withdraw takes a request out of the queue whose context has ended, and returns why. g.mu is held.
func (g *Gate) withdraw(ctx context.Context, l *level, f *flow, w *waiter) error {
	g.dequeue(l, f, slices.Index(f.queue, w))
	if len(f.queue) == 0 {
		l.turns = slices.DeleteFunc(l.turns, func(o *flow) bool { return o == f })
	}
	l.forget(f)
	g.fill(l) // it may have been the one that the others waited for
	if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		w.tally.rejected[cancelled]++
		return ctx.Err()
	}
	w.tally.rejected[timeOut]++
	return tooMany("the request has waited too long for its turn")
}

// tooMany returns a 429 that begins with upstream's text. It names no level: those names are not for clients, as upstream has it.
func tooMany(why string) error {
	return apierrors.NewTooManyRequests("Too many requests, please try again later: "+why, 1)
}
