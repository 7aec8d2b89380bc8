// Package registrytest gives tests a registry as the hub has it: a real store in a temporary directory and all built-in
// kinds, running until the test ends.
package registrytest

import (
	"context"
	"errors"
	"path/filepath"
	"testing"

	"golang.org/x/sync/errgroup"

	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/sqlstore"
	"petrel.dev/petrel/sqlstore/sqlite"
)

// New returns a running registry on an empty store of its own.
func New(t testing.TB) *registry.Registry {
	t.Helper()
	return Start(t, registry.Config{})
}

// Start is New with a configuration. Store and Kinds are filled in where they are nil; a Store that is given must be
// running.
func Start(t testing.TB, cfg registry.Config) *registry.Registry {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	g, ctx := errgroup.WithContext(ctx)
	if cfg.Kinds == nil {
		cfg.Kinds = resource.New()
	}
	if cfg.Store == nil {
		cfg.Store = Store(t)
	}
	r := registry.New(cfg)
	g.Go(func() error { return r.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("registry: %v", err)
		}
	})
	return r
}

// TestStore is a store that can be made to forget its history.
type TestStore interface {
	sqlstore.Store
	// Compact forgets history up to and including revision to.
	Compact(ctx context.Context, to sqlstore.Revision) error
}

// Store returns a running, empty store.
func Store(t testing.TB) TestStore {
	t.Helper()
	return Limited(t, 0)
}

// Limited is Store with a limit on the bytes of its objects; 0 is the usual one.
func Limited(t testing.TB, limit int64) TestStore {
	t.Helper()
	return open(t, sqlite.Config{MaxBytes: limit})
}

// Shared is Limited where each namespace has its share of the limit, as in the hub.
func Shared(t testing.TB, limit int64) TestStore {
	t.Helper()
	return open(t, sqlite.Config{MaxBytes: limit, Tenant: resource.TenantOf})
}

func open(t testing.TB, cfg sqlite.Config) TestStore {
	t.Helper()
	cfg.Path = filepath.Join(t.TempDir(), "hub.db")
	ctx, cancel := context.WithCancel(context.Background())
	db, err := sqlite.Open(ctx, cfg)
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- db.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("store: %v", err)
		}
		if err := db.Close(); err != nil {
			t.Errorf("close store: %v", err)
		}
	})
	return db
}

// Target names an object, or with an empty name a collection, of a built-in kind. sub is a subresource or nothing.
func Target(t testing.TB, gvk kube.GVK, namespace, name string, sub ...string) registry.Target {
	t.Helper()
	k, ok := builtin.ByGVK(gvk)
	if !ok {
		t.Fatalf("%s is not a built-in kind", gvk)
	}
	target := registry.Target{Kind: k, Namespace: namespace, Name: name}
	if len(sub) > 0 {
		target.Subresource = sub[0]
	}
	return target
}

var builtin = resource.New()
