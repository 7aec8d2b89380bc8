package dispatch

import (
	"context"
	"time"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/contain"
)

// run writes what is queued until ctx ends.
func (i *intake) run(ctx context.Context) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	defer i.attempts.Wait()
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

// round gives each node whose time has come its share of one transaction. busy: there may be more to do at
// once. Otherwise nothing is to do before wait, or at all when that is zero.
func (i *intake) round(ctx context.Context, now time.Time) (wait time.Time, busy bool) {
	i.collect(now)
	i.prune(now)
	later := i.resume(now)
	// Reports are planned on what the store holds: otherwise a round would conflict with the one before it.
	if err := i.client.CatchUp(ctx); err != nil {
		if ctx.Err() == nil {
			i.log.Error("reports of nodes cannot be written, will try again", "error", err)
		}
		return now.Add(storeRetry), false
	}
	shares, wait := i.gather(now)
	if len(shares) == 0 {
		return earliest(wait, later), false
	}
	var together []share
	for _, s := range shares {
		if !s.alone {
			together = append(together, s)
		}
	}
	i.together(ctx, now, together)
	for _, s := range shares {
		if s.alone && ctx.Err() == nil {
			i.one(ctx, s.q, s.job)
		}
	}
	return time.Time{}, true
}

// together writes several nodes' shares in one transaction or, when that fails, each by itself.
func (i *intake) together(ctx context.Context, now time.Time, shares []share) {
	if len(shares) == 0 {
		return
	}
	soon, cancel := context.WithTimeout(ctx, togetherTime)
	defer cancel()
	if i.commit(soon, shares) == nil {
		for _, s := range shares {
			i.finished(now, s)
		}
		return
	}
	if soon.Err() != nil {
		i.slow = time.Now().Add(slowFor)
	}
	for _, s := range shares {
		i.tryShare(ctx, soon, now, s, len(shares) > 1)
	}
}

// tryShare writes one node's share of a transaction that has failed. One that fails by itself too, or for which no time is left (soon
// has ended), is the node's own fault: its first report is tried alone, and so are those behind it for a while.
func (i *intake) tryShare(ctx, soon context.Context, now time.Time, s share, again bool) {
	if ctx.Err() != nil {
		return
	}
	if again && soon.Err() == nil && i.commit(soon, []share{s}) == nil {
		i.finished(now, s)
		return
	}
	s.q.suspect = time.Now().Add(suspectFor)
	i.one(ctx, s.q, s.job)
}

// finished records that all of a share is written.
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
