// Package storetest is the conformance suite of Petrel's object log. Whatever claims to be a Store passes Run: the SQLite
// one, the naive one in this package that serves as its specification and as a fake, and every engine to come.
//
// Run's suite has three parts: timelines in testdata/*.txt that tell what a user sees, step by step; concurrency that text
// cannot tell; and a model test that drives the store and [Memory] with the same random operations. RunHistory and RunLimits ask for stores
// of a certain place or size.
package storetest

import (
	"context"
	"testing"

	"petrel.dev/petrel/sqlstore"
)

// Store is the contract under test: sqlstore's, and History, Compact.
type Store interface {
	sqlstore.Store
	// History names the sequence of revisions that the store belongs to; see RunHistory.
	History() string
	// Compact forgets history up to and including revision to. List at and Watch from to itself still work.
	Compact(ctx context.Context, to sqlstore.Revision) error
}

// Run checks the store that open makes; open is called for each part with an empty store wanted, ready for Commit, and
// closes it in t.Cleanup.
func Run(t *testing.T, open func(t testing.TB) Store) {
	t.Run("scripts", func(t *testing.T) { runScripts(t, open) })
	t.Run("concurrency", func(t *testing.T) { runConcurrency(t, open) })
	t.Run("model", func(t *testing.T) { runModel(t, open) })
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
