// Package memory is an engine that keeps a sqlstore.Store in memory and nowhere else: what is in it ends with it.
//
// It is for tests, which it spares the disk, and it proves that the contract has no room for SQLite: with replica below it there
// is nothing left for it to do but take commits one after the other. The whole suite of hub/registry passes on it, and
// sqlstore/storetest. An engine on a server, such as PostgreSQL, is built the same way: it makes a batch's changes durable
// before it publishes them, and gives replica a Source for history that has left memory. No hub runs on this one.
package memory

import (
	"context"
	"crypto/rand"
	"sync"
	"time"

	"petrel.dev/petrel/sqlstore"
	"petrel.dev/petrel/sqlstore/replica"
)

// Config bounds a store. The zero Config has sqlite's bounds.
type Config struct {
	// Keep bounds the history.
	Keep replica.Keep
	// MaxBytes bounds what all objects take; over it Commit takes only what does not make the store grow.
	MaxBytes int64
	// Expendable are prefixes of keys that a full store still takes small ones of.
	Expendable []string
	// Tenant names whose a key is; see replica.Config.
	Tenant func(key string) string
}

// Store is an open store.
type Store struct {
	id  string       // History; never changes
	log *replica.Log // what readers see; never nil

	mu     sync.Mutex // held by the one who commits
	closed bool
}

var _ sqlstore.Store = (*Store)(nil)

// New returns an empty store, which takes commits at once.
func New(cfg Config) *Store {
	return &Store{id: rand.Text(), log: replica.New(replica.Config{
		Index: replica.NewIndex(), Keep: cfg.Keep, MaxBytes: cfg.MaxBytes, Expendable: cfg.Expendable, Tenant: cfg.Tenant, Path: "memory",
	})}
}

// History names the sequence of revisions that the store belongs to: its own, since it lives once.
func (s *Store) History() string { return s.id }

// Get implements sqlstore.Store.
func (s *Store) Get(ctx context.Context, key string) (sqlstore.Entry, bool, error) {
	return s.log.Get(ctx, key)
}

// Revision implements sqlstore.Store.
func (s *Store) Revision(ctx context.Context) (sqlstore.Revision, error) { return s.log.Revision(ctx) }

// List implements sqlstore.Store.
func (s *Store) List(ctx context.Context, prefix, after string, limit int, at sqlstore.Revision) (sqlstore.Page, error) {
	return s.log.List(ctx, prefix, after, limit, at)
}

// Watch implements sqlstore.Store.
func (s *Store) Watch(ctx context.Context, prefix string, from sqlstore.Revision) (sqlstore.Watcher, error) {
	return s.log.Watch(ctx, prefix, from)
}

// Commit implements sqlstore.Store.
func (s *Store) Commit(ctx context.Context, ops ...sqlstore.Op) ([]sqlstore.Revision, error) {
	if len(ops) == 0 {
		return nil, nil
	}
	if err := sqlstore.Check(ops); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if s.closed {
		return nil, sqlstore.ErrClosed
	}
	b := s.log.Begin()
	revs, err := b.Add(ops)
	if err != nil {
		return nil, err
	}
	b.Publish()
	now := time.Now()
	s.log.Mark(now)
	if to, _ := s.log.Due(now, s.log.Compacted()); to > s.log.Compacted() {
		s.log.Forget(to)
	}
	return revs, nil
}

// Compact forgets history up to and including revision to. It happens by itself, too.
func (s *Store) Compact(_ context.Context, to sqlstore.Revision) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return sqlstore.ErrClosed
	}
	if cur := s.log.Rev(); to > cur {
		return &sqlstore.FutureError{Asked: to, Current: cur}
	}
	s.log.Forget(to)
	return nil
}

// Stuck returns nil: nothing here waits for a disk.
func (s *Store) Stuck(time.Duration) error { return nil }

// Health returns why the store takes only what does not make it grow, or nil.
func (s *Store) Health() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if full := s.log.Room.Full(); full != nil {
		return full
	}
	return nil
}

// Run waits until ctx ends: the store has no work of its own.
func (s *Store) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// Close has everything that is asked of the store, and of its watchers, fail with sqlstore.ErrClosed.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.log.Close()
	return nil
}
