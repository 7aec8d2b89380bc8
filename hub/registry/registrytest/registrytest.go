// Package registrytest gives tests a registry as the hub has it: a real store of its own and all built-in
// kinds, running until the test ends.
package registrytest

import (
	"context"
	"errors"
	"sync"
	"testing"

	"golang.org/x/sync/errgroup"

	"petrel.dev/petrel/hub/objects"
	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/hub/registry/podverbs"
	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/hub/resource/builtin"
	"petrel.dev/petrel/hub/resource/openapi"
	"petrel.dev/petrel/internal/kube"
)

// New returns a running registry on an empty store of its own.
func New(t testing.TB) *registry.Registry {
	t.Helper()
	return Start(t, registry.Config{})
}

// Start is New with a configuration. Store, Kinds and Objects are filled in where they are nil; a Store in cfg must be
// running.
func Start(t testing.TB, cfg registry.Config) *registry.Registry {
	t.Helper()
	if cfg.Store == nil {
		cfg.Store = Store(t)
	}
	r := Make(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return r.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("registry: %v", err)
		}
	})
	return r
}

// Make returns a registry on cfg.Store that does not run. Kinds, Objects and Types are filled in where they are nil.
func Make(cfg registry.Config) *registry.Registry {
	if cfg.Kinds == nil {
		cfg.Kinds = Kinds()
	}
	if cfg.Objects == nil {
		cfg.Objects = objects.New(objects.Config{Store: cfg.Store, Kinds: cfg.Kinds})
	}
	if cfg.Types == nil {
		cfg.Types = &openapi.Types{}
	}
	return registry.New(cfg)
}

// Store returns a running, empty store.
func Store(t testing.TB) TestStore {
	t.Helper()
	return Limited(t, 0)
}

// Limited is Store with a limit on the bytes of its objects; 0 is the usual one.
func Limited(t testing.TB, limit int64) TestStore {
	t.Helper()
	return run(t, open(t, limit, nil))
}

// Shared is Limited where each namespace has its share of the limit, as in the hub.
func Shared(t testing.TB, limit int64) TestStore {
	t.Helper()
	return run(t, open(t, limit, resource.TenantOf))
}

func run(t testing.TB, db engine) TestStore {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
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
func Target(t testing.TB, gvk kube.GVK, namespace, name string, sub ...string) resource.Target {
	t.Helper()
	return TargetOf(t, builtins(), gvk, namespace, name, sub...)
}

// TargetOf is Target for a kind of a test's own table.
func TargetOf(t testing.TB, kinds *resource.Kinds, gvk kube.GVK, namespace, name string, sub ...string) resource.Target {
	t.Helper()
	k, ok := kinds.Lookup(gvk)
	if !ok {
		t.Fatalf("%s is not declared", gvk)
	}
	target := resource.Target{Kind: k, Namespace: namespace, Name: name}
	if len(sub) > 0 {
		target.Subresource = sub[0]
	}
	return target
}

// Kinds returns the built-in kinds with their handlers, of which the one for tokens issues none.
func Kinds() *resource.Kinds {
	kinds := builtin.New()
	if err := podverbs.Install(kinds, nil); err != nil {
		panic(err) // a subresource is not declared any more
	}
	return kinds
}

// builtins are the kinds that Target reads.
var builtins = sync.OnceValue(Kinds)
