package dispatch

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"petrel.dev/petrel/internal/contain"
	"petrel.dev/petrel/internal/wire"
)

// A write may have to wait for webhooks, which are foreign code: one that hangs takes its whole timeout for each write that concerns
// it. Reports that share a transaction have little time. Once one was slow, all are written by themselves for a while, beside the
// intake's goroutine: only their own nodes wait.

const (
	// togetherTime bounds the transactions of one round, admission included.
	togetherTime = 5 * time.Second
	// attemptTime bounds one try at one report, as that of any request.
	attemptTime = 34 * time.Second
	// patience is how long the intake waits for a report that is written by itself before it goes on with other nodes'.
	patience = time.Second
	// slowFor is how long reports share no transaction after one that took longer.
	slowFor = time.Minute
	// heldUpRetry is when a report that a webhook held up is tried again.
	heldUpRetry = 15 * time.Second
	// heldUpEvents is how often an Event is tried that a webhook holds up.
	heldUpEvents = 3
)

// attempt is one try at one report by itself. left and err belong to its goroutine until it is in intake.ended.
type attempt struct {
	q     *queue
	job   *job
	r     report
	began time.Time
	left  []string // what of the report was not taken
	err   error
}

// one writes the next report of a batch by itself, and goes on behind it when it is written or has no effect. Otherwise it is
// tried again later; only this node waits for that.
func (i *intake) one(ctx context.Context, q *queue, j *job) {
	if j.at >= len(j.batch.Puts) {
		i.advance(q, j, 0)
		return
	}
	if j.tries == 0 {
		j.since = i.written
	}
	j.tries++
	t := &attempt{q: q, job: j, r: j.report(j.at), began: time.Now()}
	q.trying = true
	i.trying++
	ended := make(chan struct{})
	i.attempts.Go(func() {
		defer close(ended)
		i.try(ctx, t)
	})
	if i.trying == 1 { // otherwise one takes long already, and more would be waited for one after the other
		i.wait(ctx, ended)
	}
	i.collect(time.Now())
}

// wait waits until something has ended, but no longer than patience.
func (i *intake) wait(ctx context.Context, ended <-chan struct{}) {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-ended:
	case <-timer.C:
		i.slow = time.Now().Add(slowFor)
	case <-ctx.Done():
	}
}

// writeEvents writes the hub's own Events, beside the intake's goroutine if that takes long.
func (i *intake) writeEvents(ctx context.Context) {
	if !i.events.begin() {
		return
	}
	ended := make(chan struct{})
	i.attempts.Go(func() {
		defer close(ended)
		ctx, cancel := context.WithTimeout(ctx, attemptTime)
		defer cancel()
		i.events.write(ctx)
		i.signal()
	})
	if !time.Now().Before(i.slow) {
		i.wait(ctx, ended)
	}
}

// try makes an attempt, in its own goroutine.
func (i *intake) try(ctx context.Context, t *attempt) {
	ctx, cancel := context.WithTimeout(ctx, attemptTime)
	defer cancel()
	t.err = contain.Do(i.log, "dispatch/intake", t.job.node, func() (err error) {
		p := i.plan(t.r)
		t.left = p.left
		if err = i.writeAll(ctx, p); apierrors.IsInvalid(err) {
			if rest, what := salvage(p, err); len(what) > 0 {
				t.left = append(t.left, what...)
				err = i.writeAll(ctx, rest)
			}
		}
		return err
	})
	i.mu.Lock()
	i.ended = append(i.ended, t)
	i.mu.Unlock()
	i.signal()
}

// collect takes the attempts that have ended.
func (i *intake) collect(now time.Time) {
	i.mu.Lock()
	ended := i.ended
	i.ended = nil
	i.mu.Unlock()
	i.written += i.events.done()
	for _, t := range ended {
		i.trying--
		t.q.trying = false
		if now.Sub(t.began) > patience {
			i.slow = now.Add(slowFor)
		}
		if t.err == nil {
			i.written++
		}
		if i.current(t.q) == t.job { // otherwise its session is over, and the node sends the report again
			i.settle(now, t)
		}
	}
}

// current returns the batch of a queue.
func (i *intake) current(q *queue) *job {
	i.mu.Lock()
	defer i.mu.Unlock()
	return q.job
}

// settle decides what becomes of a report that was tried.
func (i *intake) settle(now time.Time, t *attempt) {
	q, j, r, err := t.q, t.job, t.r, t.err
	switch again, pause, why := i.verdict(j, err); {
	case storeFull(err) && i.setAside(now, q, r.put):
		i.events.add(now, j.node, "ReportDelayed", fmt.Sprintf("a report of this node (%s %.100s) waits until the store has room: %v", r.put.Kind, r.put.Name, err))
	case heldUp(err) && i.setAside(now, q, r.put):
		i.retryAside(now.Add(heldUpRetry))
		i.events.add(now, j.node, "ReportDelayed", fmt.Sprintf("a report of this node (%s %.100s) waits for a webhook: %v", r.put.Kind, r.put.Name, err))
	case again:
		j.notBefore = now.Add(pause)
		if j.tries >= storeTries { // if the Event can be written, the report is at fault and not the store
			i.events.add(now, j.node, "ReportDelayed", fmt.Sprintf("a report of this node (%s %.100s) cannot be written: %v", r.put.Kind, r.put.Name, err))
		}
		return
	case why != "":
		i.leftOut(now, j.node, leftOut{r.put, []string{fmt.Sprintf("all of it: %s: %v", why, err)}})
	case err == nil && len(t.left) > 0:
		i.leftOut(now, j.node, leftOut{r.put, t.left})
	}
	i.advance(q, j, 1)
}

// heldUp reports whether a write failed because a webhook that admits it did not answer as it should, or not in time. That is neither
// the report's fault nor the store's, and ends some day.
func heldUp(err error) bool {
	if errors.Is(err, context.DeadlineExceeded) || apierrors.IsTimeout(err) || apierrors.IsServerTimeout(err) {
		return true
	}
	var status apierrors.APIStatus
	return errors.As(err, &status) && apierrors.IsInternalError(err) && strings.Contains(status.Status().Message, "failed calling webhook ")
}

// eventHeldUp reports whether an Event has been held up often enough: it is not worth that the reports behind it wait.
func (j *job) eventHeldUp(err error) bool {
	return heldUp(err) && j.tries >= heldUpEvents && j.report(j.at).put.Kind == wire.KindEvent
}
