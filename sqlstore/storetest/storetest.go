// Package storetest is the conformance suite of Petrel's object log. Whatever claims to be an engine passes Run: the SQLite
// one, the one in memory, the naive one in this package that serves as their specification, and every engine to come.
//
// The suite has timelines in testdata/*.txt that show what a user sees, step by step; concurrency that text cannot show; a model
// test that drives the store and [Spec] with the same random operations; and, of engines that can do such things, what a full
// store takes, what is there when it is opened again, and what when its process was killed.
package storetest

import (
	"context"
	"testing"

	"petrel.dev/petrel/sqlstore"
)

// Store is the contract under test: sqlstore's, and what an engine has beside it for its operator.
type Store interface {
	sqlstore.Store
	// History names the sequence of revisions that the store belongs to. It does not change while the store is open.
	History() string
	// Compact forgets history up to and including revision to. List at and Watch from to itself still work.
	Compact(ctx context.Context, to sqlstore.Revision) error
	// Close has all that is asked of the store fail with sqlstore.ErrClosed. It may be called again.
	Close() error
}

// Engine is what is under test. It may also be a Limiter, a Sharer, a Durable and a Killable.
type Engine interface {
	// Open makes an empty store, ready for Commit, and closes it in t.Cleanup.
	Open(t testing.TB) Store
}

// Limiter is an Engine whose stores can be bounded.
type Limiter interface {
	// OpenLimited is Open for a store that may hold limit bytes, and in which keys below ExpendablePrefix are expendable.
	OpenLimited(t testing.TB, limit int64) Store
}

// Sharer is an Engine whose bounded stores have tenants.
type Sharer interface {
	// OpenShared is Open for a store that may hold limit bytes, and in which a key's tenant is TenantOf's.
	OpenShared(t testing.TB, limit int64) Store
}

// Durable is an Engine whose stores are there when they are opened again.
type Durable interface {
	// NewPlace returns where one store is kept; there is none yet.
	NewPlace(t testing.TB) Place
}

// Run checks an engine.
func Run(t *testing.T, e Engine) {
	t.Run("scripts", func(t *testing.T) { runScripts(t, e.Open) })
	t.Run("concurrency", func(t *testing.T) { runConcurrency(t, e.Open) })
	t.Run("calls", func(t *testing.T) { runCalls(t, e.Open) })
	t.Run("model", func(t *testing.T) { runModel(t, e.Open) })
	if l, ok := e.(Limiter); ok {
		t.Run("limits", func(t *testing.T) { runLimits(t, l.OpenLimited) })
	}
	if h, ok := e.(Sharer); ok {
		t.Run("tenants", func(t *testing.T) { runTenants(t, h.OpenShared) })
	}
	if d, ok := e.(Durable); ok {
		t.Run("durable", func(t *testing.T) { runDurable(t, d.NewPlace) })
	}
	if k, ok := e.(Killable); ok {
		t.Run("killed", func(t *testing.T) { testKill(t, k) })
	}
}

// get returns the key's entry, the zero Entry when there is none.
func get(t testing.TB, s Store, key string) (sqlstore.Entry, bool) {
	t.Helper()
	e, ok, err := s.Get(context.Background(), key)
	if err != nil {
		t.Errorf("get %s: %v", key, err)
	}
	return e, ok
}

func revision(t testing.TB, s Store) sqlstore.Revision {
	t.Helper()
	rev, err := s.Revision(context.Background())
	if err != nil {
		t.Errorf("revision: %v", err)
	}
	return rev
}
