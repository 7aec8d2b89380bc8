package dispatch

import (
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/wire"
)

const (
	maxWrites   = 256         // of one transaction
	maxTxBytes  = 1 << 20     // of the reports in one transaction
	maxShare    = 32          // reports of one node in one transaction
	intakeTries = 30          // of one write that has conflicts, each with another writer
	storeRetry  = time.Second // doubles up to storeRetryMax
	storeTries  = 10          // of a report that fails for no reason that the API names, while others are written
	suspectFor  = 2 * time.Second
)

// storeRetryMax is the longest pause between two attempts for a report that the store does not accept.
const storeRetryMax = 30 * time.Second

// What one node's reports may cost. A node with 110 pods that start at once fits into the burst: each has some five Events,
// which are left out, not only late, when they are too many. In an hour, the time that Events are kept, a node has less than
// half of all.
var (
	writeLimit  = limit{rate: 100, burst: 512}
	byteLimit   = limit{rate: 256 << 10, burst: 4 << 20}
	eventsLimit = limit{rate: 1, burst: 600}
)

// job is a batch of one node's reports. done is called, from the intake's goroutine, when all that may be taken of it is
// durable.
type job struct {
	device string
	node   string
	batch  *wire.Batch
	done   func()

	// The rest is owned by the intake's goroutine.
	at        int       // how many puts are done with
	tries     int       // for the report at at
	since     uint64    // intake.written at its first try
	notBefore time.Time // when to try it again
	aside     bool      // of reports that were set aside, see aside.go; never changes
}

// report returns the one at k.
func (j *job) report(k int) report { return report{j.node, &j.batch.Puts[k]} }

// queue is that of one device. Fields without another note are owned by the intake's goroutine.
type queue struct {
	device string
	job    *job // nil: none; guarded by intake.mu

	writes, bytes, events bucket

	suspect time.Time // until when its reports share no transaction
	trying  bool      // one of its reports is being written by itself

	aside      map[wire.ID]wire.Put // reports that the store had no room for; guarded by intake.mu
	asideBytes int                  // of aside; guarded by intake.mu
	asideNode  string               // the node that reported them; guarded by intake.mu
}

// intake writes what nodes report. Each node has a queue of its own, of one batch: it sends no other before that one is
// answered. In turn, each node whose budget allows gets a share of the next transaction. When a transaction fails, the
// shares in it are tried one by one, and a node whose own share fails goes on alone for a while, see attempt.go: only that node
// waits for its failures.
type intake struct {
	client control.Client
	log    *slog.Logger

	mu         sync.Mutex
	queues     map[string]*queue // by device; guarded by mu
	turn       []*queue          // those with a job, next first; guarded by mu
	pruneAt    int               // how many queues there are when those to forget are looked for; guarded by mu
	panics     map[string]uint64 // by node, as it last reported; guarded by mu
	asideBytes int               // of what is set aside in all queues; guarded by mu
	asideAt    time.Time         // when it is tried again; zero: there is none, or storeHasRoom decides; guarded by mu
	asideDue   bool              // it is to be tried now; guarded by mu
	ended      []*attempt        // not taken yet; guarded by mu
	ready      chan struct{}     // has room for one; a signal that something is to be done
	events     *nodeEvents
	attempts   sync.WaitGroup // the goroutines of attempts

	// The rest is owned by the goroutine that runs run.
	networks []netip.Prefix // of pods and Services: no node's own addresses
	written  uint64         // transactions that succeeded; grows only
	slow     time.Time      // until when no reports share a transaction
	trying   int            // queues with a report that is being written by itself
}

func newIntake(client control.Client, settings wire.Settings, log *slog.Logger) *intake {
	i := &intake{
		client: client, log: log, ready: make(chan struct{}, 1), queues: map[string]*queue{}, pruneAt: 64, panics: map[string]uint64{},
	}
	i.events = newNodeEvents(client, log, i.signal)
	for _, text := range []string{settings.PodCIDR, settings.ServiceCIDR} {
		if p, err := netip.ParsePrefix(text); err == nil {
			i.networks = append(i.networks, p)
		}
	}
	return i
}

// add queues a device's batch. It replaces one that is there already, which is of a session that has ended.
func (i *intake) add(j job) {
	i.mu.Lock()
	defer i.mu.Unlock()
	q := i.queues[j.device]
	if q == nil {
		q = &queue{device: j.device}
		i.queues[j.device] = q
	}
	switch {
	case q.job == nil:
		i.turn = append(i.turn, q)
	case q.job.aside:
		i.putBack(time.Now(), q, q.job)
	}
	for k := range j.batch.Puts { // newer
		i.forgetAside(q, j.batch.Puts[k].ID)
	}
	for _, id := range j.batch.Deletes {
		i.forgetAside(q, id)
	}
	q.job, q.asideNode = &j, j.node
	i.signal()
}

// drop removes what a device has queued: its session is over, and it will send it again. What it has used of its budget stays
// used.
func (i *intake) drop(device string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if q := i.queues[device]; q != nil && q.job != nil && !q.job.aside {
		i.finish(q)
	}
}

// finish takes a queue out of the turn.
func (i *intake) finish(q *queue) {
	q.job = nil
	for k, other := range i.turn {
		if other == q {
			i.turn = append(i.turn[:k:k], i.turn[k+1:]...)
			return
		}
	}
}

// prune removes the queues of devices that have nothing queued and whose budget is full again, when there are many queues.
func (i *intake) prune(now time.Time) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.queues) < i.pruneAt {
		return
	}
	for device, q := range i.queues {
		if q.job == nil && !q.trying && len(q.aside) == 0 && now.After(latest(q.bytes.at, q.events.at).Add(2*time.Minute)) {
			delete(i.queues, device)
		}
	}
	i.pruneAt = 2*len(i.queues) + 64
}

func (i *intake) signal() {
	select {
	case i.ready <- struct{}{}:
	default:
	}
}

// last moves a queue to the end of the turn.
func (i *intake) last(q *queue) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if k := slices.Index(i.turn, q); k >= 0 {
		i.turn = append(append(i.turn[:k:k], i.turn[k+1:]...), q)
	}
}

// advance records that n reports of a device's batch are done with, and calls done after the last.
func (i *intake) advance(q *queue, j *job, n int) {
	i.mu.Lock()
	if q.job != j { // dropped meanwhile
		i.mu.Unlock()
		return
	}
	j.at += n
	j.tries, j.notBefore = 0, time.Time{}
	done := j.at >= len(j.batch.Puts)
	if done {
		i.finish(q)
	}
	i.mu.Unlock()
	if done {
		j.done()
	}
}

// when returns when the node's budget allows a report.
func (q *queue) when(now time.Time, put *wire.Put) time.Time {
	return latest(q.writes.when(now, writeLimit, 1), q.bytes.when(now, byteLimit, float64(len(put.Data))))
}

// pay takes what a report costs out of the node's budget.
func (q *queue) pay(now time.Time, put *wire.Put) {
	q.writes.take(now, writeLimit, 1)
	q.bytes.take(now, byteLimit, float64(len(put.Data)))
	if put.Kind == wire.KindEvent {
		q.events.take(now, eventsLimit, 1)
	}
}
