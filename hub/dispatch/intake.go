package dispatch

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/contain"
	"petrel.dev/petrel/internal/wire"
)

const (
	maxWrites   = 256     // of one transaction
	maxTxBytes  = 1 << 20 // of the reports in one transaction
	maxShare    = 32      // reports of one node in one transaction
	intakeTries = 30      // of one write that loses races, 20 ms apart: the cache lags that little
	intakePause = 20 * time.Millisecond
	storeRetry  = time.Second // doubles up to storeRetryMax
	storeTries  = 10          // of a report that fails for no reason that the API names, while others are written
	suspectFor  = 2 * time.Second
)

// storeRetryMax is the longest pause between two tries of a report that the store does not take.
const storeRetryMax = 30 * time.Second

// intake writes what nodes report. Each node has a queue of its own, of one batch: it sends no other before that one is
// answered. In turn, each node whose budget allows gets a share of the next transaction. When a transaction fails, the
// shares in it are tried one by one, and a node whose own share fails goes on alone for a while: it waits for its own
// failures, and no other node does.
type intake struct {
	client control.Client
	log    *slog.Logger

	mu      sync.Mutex
	queues  map[string]*queue // by device; guarded by mu
	turn    []*queue          // those with a job, next first; guarded by mu
	pruneAt int               // how many queues there are when those to forget are looked for; guarded by mu
	panics  map[string]uint64 // by node, as it last reported; guarded by mu
	ready   chan struct{}     // has room for one; a signal that something is to be done
	events  *nodeEvents

	// The rest is the goroutine's.
	networks []netip.Prefix // of pods and Services: no node's own addresses
	written  uint64         // transactions that succeeded
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

func (i *intake) run(ctx context.Context) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for ctx.Err() == nil {
		i.written += i.events.write(ctx)
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
