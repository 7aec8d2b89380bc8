package dispatch

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/contain"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/wire"
)

const (
	maxWrites    = 256         // of one transaction
	maxTxBytes   = 1 << 20     // of the reports in one transaction
	maxShare     = 32          // reports of one node in one transaction
	intakeTries  = 30          // of one write that loses races, each against another writer
	storeRetry   = time.Second // doubles up to storeRetryMax
	storeTries   = 10          // of a report that fails for no reason that the API names, while others are written
	suspectFor   = 2 * time.Second
	maxHubEvents = 256 // of the hub's own that wait
	eventEvery   = time.Hour
	maxEventKeys = 4096
)

// storeRetryMax is the longest pause between two tries of a report that the store does not take.
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

	// The rest is the intake's goroutine's.
	at        int       // puts that are done with
	tries     int       // of the report at at
	since     uint64    // intake.written at its first try
	notBefore time.Time // when to try it again
}

// report is the one at k.
func (j *job) report(k int) report { return report{j.node, &j.batch.Puts[k]} }

// intake writes what nodes report. Each node has a queue of its own, of one batch: it sends no other before that one is
// answered. In turn, each node whose budget allows gets a share of the next transaction. When a transaction fails, the
// shares in it are tried one by one, and a node whose own share fails goes on alone for a while: it waits for its own
// failures, and nobody else does.
type intake struct {
	client control.Client
	log    *slog.Logger

	mu      sync.Mutex
	queues  map[string]*queue // by device
	turn    []*queue          // those with a job, next first
	pruneAt int               // when to look for queues to forget
	events  []*corev1.Event
	ready   chan struct{}
	panics  map[string]uint64 // by node, as it last reported
	seldom  seldom            // Events about a node, by node and reason; and log lines, by node, kind and reason

	// The rest is the goroutine's.
	networks []netip.Prefix // of pods and Services: no node's own addresses
	written  uint64         // transactions that succeeded
}

// queue is one device's. Its job is guarded by intake.mu; the rest is the goroutine's.
type queue struct {
	device string
	job    *job // nil: none

	writes, bytes, events bucket

	suspect time.Time // until when its reports share no transaction
}

func newIntake(client control.Client, settings wire.Settings, log *slog.Logger) *intake {
	i := &intake{
		client: client, log: log, ready: make(chan struct{}, 1), queues: map[string]*queue{}, pruneAt: 64, panics: map[string]uint64{},
		seldom: seldom{every: eventEvery, max: maxEventKeys},
	}
	for _, text := range []string{settings.PodCIDR, settings.ServiceCIDR} {
		if p, err := netip.ParsePrefix(text); err == nil {
			i.networks = append(i.networks, p)
		}
	}
	return i
}

// add queues a device's batch. One that is there already is of a session that has ended.
func (i *intake) add(j job) {
	i.mu.Lock()
	defer i.mu.Unlock()
	q := i.queues[j.device]
	if q == nil {
		q = &queue{device: j.device}
		i.queues[j.device] = q
	}
	if q.job == nil {
		i.turn = append(i.turn, q)
	}
	q.job = &j
	i.signal()
}

// drop forgets what a device has queued: its session is over, and it will send it again. What it has used of its budget
// stays used.
func (i *intake) drop(device string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if q := i.queues[device]; q != nil && q.job != nil {
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

// prune forgets devices that have nothing queued and whose budget is full again, when there are many queues.
func (i *intake) prune(now time.Time) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.queues) < i.pruneAt {
		return
	}
	for device, q := range i.queues {
		if q.job == nil && now.After(latest(q.bytes.at, q.events.at).Add(2*time.Minute)) {
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

// nodeEvent writes an Event about a Node, one of a reason in an hour.
func (i *intake) nodeEvent(now time.Time, node, reason, message string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.events) >= maxHubEvents || !i.seldom.allow(now, node+"/"+reason) {
		return
	}
	at := metav1.NewTime(now)
	if len(message) > maxEventMessage {
		message = message[:maxEventMessage-3] + "..."
	}
	e := &corev1.Event{
		TypeMeta:       metav1.TypeMeta{APIVersion: "v1", Kind: "Event"},
		ObjectMeta:     metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, Name: node + "." + randomHex(8)},
		InvolvedObject: corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: node},
		Reason:         reason, Message: message, Type: corev1.EventTypeWarning, Count: 1,
		FirstTimestamp: at, LastTimestamp: at, Source: corev1.EventSource{Component: "petrel-dispatch"},
	}
	if o, ok := i.client.Get(kube.Node, "", node); ok {
		e.InvolvedObject.UID = o.GetUID()
	}
	i.events = append(i.events, e)
	i.signal()
}

func (i *intake) run(ctx context.Context) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for ctx.Err() == nil {
		i.writeEvents(ctx)
		wait, busy := i.round(ctx, time.Now())
		if busy {
			continue
		}
		timer.Stop()
		if !wait.IsZero() {
			timer.Reset(max(time.Until(wait), time.Millisecond))
		}
		select {
		case <-ctx.Done():
		case <-i.ready:
		case <-timer.C:
		}
	}
	return ctx.Err()
}

func (i *intake) writeEvents(ctx context.Context) {
	i.mu.Lock()
	events := i.events
	i.events = nil
	i.mu.Unlock()
	for _, e := range events {
		err := contain.Do(i.log, "dispatch/event", e.InvolvedObject.Name, func() error {
			_, err := i.client.Create(ctx, e)
			return err
		})
		if err == nil {
			i.written++
		} else if ctx.Err() == nil {
			i.log.Warn("event not written", "reason", e.Reason, "node", e.InvolvedObject.Name, "error", err)
		}
	}
}

// share is what one node has in a round.
type share struct {
	q       *queue
	job     *job
	reports int
	bytes   int // of the reports
	writes  []control.Write
	alone   bool // must not share a transaction
	left    []leftOut
}

// round gives each node whose time has come its share of one transaction. busy: there may be more to do at once; else
// nothing is to do before wait, or at all when that is zero.
func (i *intake) round(ctx context.Context, now time.Time) (wait time.Time, busy bool) {
	i.prune(now)
	// Reports are planned on what the store holds: otherwise a round would lose against the one before it.
	if err := i.client.CatchUp(ctx); err != nil {
		if ctx.Err() == nil {
			i.log.Error("reports of nodes are not written", "error", err)
		}
		return now.Add(storeRetry), false
	}
	shares, wait := i.gather(now)
	if len(shares) == 0 {
		return wait, false
	}
	var together []share
	for _, s := range shares {
		if !s.alone {
			together = append(together, s)
		}
	}
	if len(together) > 0 && i.commit(ctx, together) == nil {
		for _, s := range together {
			i.finished(now, s)
		}
	} else {
		for _, s := range together {
			i.tryShare(ctx, now, s, len(together) > 1)
		}
	}
	for _, s := range shares {
		if s.alone && ctx.Err() == nil {
			i.one(ctx, s.q, s.job)
		}
	}
	return time.Time{}, true
}

// tryShare writes one node's share of a transaction that has failed. One that fails by itself too is the node's own fault:
// its first report is tried alone, and so are those behind it for a while.
func (i *intake) tryShare(ctx context.Context, now time.Time, s share, again bool) {
	if ctx.Err() != nil {
		return
	}
	if again && i.commit(ctx, []share{s}) == nil {
		i.finished(now, s)
		return
	}
	s.q.suspect = time.Now().Add(suspectFor)
	i.one(ctx, s.q, s.job)
}

// finished says that all of a share is written.
func (i *intake) finished(now time.Time, s share) {
	for _, l := range s.left {
		i.leftOut(now, s.job.node, l)
	}
	i.advance(s.q, s.job, s.reports)
}

func (i *intake) commit(ctx context.Context, shares []share) error {
	var writes []control.Write
	for _, s := range shares {
		writes = append(writes, s.writes...)
	}
	if len(writes) == 0 {
		return nil
	}
	err := contain.Do(i.log, "dispatch/intake", shares[0].job.node, func() error { return i.client.Commit(ctx, writes) })
	if err == nil {
		i.written++
	}
	return err
}

// advance says that so many reports of a device's batch are done with, and answers the batch after the last.
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

// key names the object that a write changes.
func key(w control.Write) string {
	return fmt.Sprintf("%T/%s/%s", w.Object, w.Object.GetNamespace(), w.Object.GetName())
}
