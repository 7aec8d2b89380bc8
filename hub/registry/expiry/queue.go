package expiry

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/sqlstore"
)

const (
	// batchSize bounds one deleting transaction.
	batchSize = 500
	// slack is how long an object may outlive its time so that many go in one transaction.
	slack = time.Minute
	// retryAfter is how long after a failure deletions are tried again.
	retryAfter = 10 * time.Second
)

// queue deletes the objects of a kind with a TTL when their time is over or when there are too many. A kind has one lifetime
// counted from the last write, so writes are in the order of expiry and a queue is enough. Without objects no timer runs.
type queue struct {
	store sqlstore.Store
	now   func() time.Time
	ttl   resource.TTL
	log   *slog.Logger

	mu     sync.Mutex
	order  []written          // by time of the write; also has writes that a later one of the key has replaced; guarded by mu
	latest map[string]written // the last write of each key; guarded by mu
	bytes  int                // of the values in latest; guarded by mu
	retry  bool               // the last deletion failed; guarded by mu
	wake   chan struct{}      // one token while there may be something to delete earlier than planned
}

// written is one write of an object.
type written struct {
	key  string
	rev  sqlstore.Revision
	at   time.Time // by the hub's clock, or estimated by load
	size int       // of the value, in bytes
}

func newQueue(s sqlstore.Store, now func() time.Time, ttl resource.TTL, log *slog.Logger) *queue {
	return &queue{store: s, now: now, ttl: ttl, log: log, latest: map[string]written{}, wake: make(chan struct{}, 1)}
}

// load adds the objects that exist, by the times in them. What saw has added already is newer.
func (x *queue) load(ctx context.Context, prefix string) error {
	page, err := x.store.List(ctx, prefix, "", 0, 0)
	if err != nil {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, e := range page.Entries {
		if e.Rev <= x.latest[e.Key].rev {
			continue
		}
		w := written{e.Key, e.Rev, x.lastWrite(e.Value), len(e.Value)}
		x.order = append(x.order, w)
		x.note(w)
	}
	slices.SortStableFunc(x.order, func(a, b written) int { return a.at.Compare(b.at) })
	return nil
}

// lastWrite estimates when an object was last written. One without a time counts as written now.
func (x *queue) lastWrite(data []byte) time.Time {
	estimate, now := x.ttl.LastWrite, x.now()
	if estimate == nil {
		estimate = created
	}
	at := estimate(data)
	if at.IsZero() || at.After(now) { // the latter when a clock was wrong
		return now
	}
	return at
}

// created returns an object's creationTimestamp.
func created(data []byte) time.Time {
	var obj struct {
		Metadata struct {
			CreationTimestamp time.Time `json:"creationTimestamp"`
		} `json:"metadata"`
	}
	if json.Unmarshal(data, &obj) != nil {
		return time.Time{}
	}
	return obj.Metadata.CreationTimestamp
}

// saw adds a change of the kind; the feed calls it for each.
func (x *queue) saw(ev sqlstore.Event) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if ev.Deleted {
		x.forget(ev.Key)
		return
	}
	w := written{ev.Key, ev.Rev, x.now(), len(ev.Value)}
	before := x.excess()
	x.note(w)
	x.order = append(x.order, w)
	if len(x.order) > 2*len(x.latest)+1000 { // the same objects again and again
		x.order = slices.DeleteFunc(x.order, func(w written) bool { return x.latest[w.key].rev != w.rev })
	}
	if len(x.order) == 1 || !before && x.excess() {
		select {
		case x.wake <- struct{}{}:
		default:
		}
	}
}

// note and forget keep latest and bytes in step. x.mu is held.
func (x *queue) note(w written) {
	x.bytes += w.size - x.latest[w.key].size
	x.latest[w.key] = w
}

func (x *queue) forget(key string) {
	x.bytes -= x.latest[key].size
	delete(x.latest, key)
}

// excess reports whether there are too many objects.
func (x *queue) excess() bool {
	return x.ttl.MaxObjects > 0 && len(x.latest) > x.ttl.MaxObjects || x.ttl.MaxBytes > 0 && x.bytes > x.ttl.MaxBytes
}

// back returns to the queue what could not be deleted, as the oldest. What was written again meanwhile has its own place.
func (x *queue) back(batch []written) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.retry = true
	var again []written
	for _, w := range batch {
		if _, newer := x.latest[w.key]; !newer {
			x.note(w)
			again = append(again, w)
		}
	}
	x.order = append(again, x.order...)
}

// run deletes what is due until ctx ends.
func (x *queue) run(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	defer timer.Stop()
	for {
		for {
			batch := x.due()
			if len(batch) == 0 {
				break
			}
			if !x.remove(ctx, batch) {
				return
			}
			if x.failed() {
				break
			}
		}
		if wait, any := x.next(); any {
			timer.Reset(wait)
		}
		select {
		case <-ctx.Done():
			return
		case <-x.wake:
		case <-timer.C:
		}
	}
}

// due takes the objects that must go now from the queue, at most a batch: those past their time, and the oldest tenth
// when there are too many.
func (x *queue) due() []written {
	x.mu.Lock()
	defer x.mu.Unlock()
	now := x.now()
	number, bytes := 0, 0 // what must go, at least
	if x.excess() {
		if x.ttl.MaxObjects > 0 {
			number = len(x.latest) - x.ttl.MaxObjects*9/10
		}
		if x.ttl.MaxBytes > 0 {
			bytes = x.bytes - x.ttl.MaxBytes/10*9
		}
	}
	var batch []written
	taken := 0
	for _, w := range x.order {
		if len(batch) == batchSize {
			break
		}
		if x.latest[w.key].rev == w.rev {
			if now.Sub(w.at) < x.ttl.After && number <= 0 && bytes <= 0 {
				break
			}
			batch = append(batch, w)
			x.forget(w.key)
			number--
			bytes -= w.size
		}
		taken++
	}
	x.order = slices.Delete(x.order, 0, taken)
	return batch
}

// next returns how long it is until the oldest object's time is over; any is false when there is none.
func (x *queue) next() (wait time.Duration, any bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.order) == 0 {
		return 0, false
	}
	if x.retry {
		x.retry = false
		return retryAfter, true
	}
	return max(x.ttl.After-x.now().Sub(x.order[0].at), 0) + min(slack, x.ttl.After/10), true
}

// failed reports whether the last deletion failed.
func (x *queue) failed() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.retry
}

// remove deletes a batch in one transaction. An object that was written again meanwhile stays: its new write is queued. It
// returns false when ctx ended or the store closed.
func (x *queue) remove(ctx context.Context, batch []written) bool {
	for len(batch) > 0 {
		ops := make([]sqlstore.Op, len(batch))
		for i, w := range batch {
			ops[i] = sqlstore.Op{Key: w.key, Delete: true, If: w.rev, RevAt: -1}
		}
		_, err := x.store.Commit(ctx, ops...)
		var lost *sqlstore.ConflictError
		switch {
		case err == nil:
			return true
		case errors.As(err, &lost):
			batch = slices.DeleteFunc(batch, func(w written) bool { return w.key == lost.Key })
		case ctx.Err() != nil, errors.Is(err, sqlstore.ErrClosed):
			return false
		default:
			x.log.Warn("objects past their time could not be deleted, will try again", "count", len(batch), "in", retryAfter, "error", err)
			x.back(batch)
			return true
		}
	}
	return true
}
