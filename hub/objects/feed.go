package objects

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"petrel.dev/petrel/sqlstore"
)

const (
	// feedStuck is how long the feed may stay at one revision while the store is ahead.
	feedStuck = 10 * time.Second
	// feedLag is how many revisions the feed may be behind the store: seconds of the busiest hub.
	feedLag = 10_000
	// storePatience is how long a check of the feed waits for the store.
	storePatience = 5 * time.Second
)

// feedHealth is the state of the feed that applies the store's changes. Its methods do not take the cache's lock, which a feed that
// has stopped may hold.
type feedHealth struct {
	running atomic.Bool  // Run runs
	applied atomic.Int64 // the cache's revision

	mu    sync.Mutex
	at    int64     // the revision at which the feed was last seen behind the store; guarded by mu
	since time.Time // when it was first seen there; zero when it was not behind; guarded by mu
}

// revision returns the one up to which all commits have been applied.
func (f *feedHealth) revision() sqlstore.Revision { return sqlstore.Revision(f.applied.Load()) }

// Health returns why controllers and typed reads do not see what the store holds, or nil. It reports a feed that has stopped
// ten seconds after the first call that found it behind.
func (c *Cache) Health() error {
	ctx, cancel := context.WithTimeout(context.Background(), storePatience)
	defer cancel()
	rev, err := c.store.Revision(ctx)
	if err != nil {
		return fmt.Errorf("read the store's revision: %w", err)
	}
	return c.feed.check(rev, time.Now())
}

func (f *feedHealth) check(store sqlstore.Revision, now time.Time) error {
	if !f.running.Load() {
		return errors.New("the feed of changes does not run: controllers see nothing new")
	}
	applied := f.applied.Load()
	behind := int64(store) - applied
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case behind <= 0:
		f.since = time.Time{}
		return nil
	case f.since.IsZero() || f.at != applied:
		f.at, f.since = applied, now
	}
	if stuck := now.Sub(f.since); stuck >= feedStuck {
		return fmt.Errorf("the feed of changes has stood still for %s, %d revisions behind the store: controllers see nothing new",
			stuck.Round(time.Second), behind)
	}
	if behind > feedLag {
		return fmt.Errorf("the feed of changes is %d revisions behind the store: controllers act on what was", behind)
	}
	return nil
}
