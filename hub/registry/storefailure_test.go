package registry_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/objects"
	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/hub/registry/registrytest"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/sqlstore"
)

// brokenStore is a store that can be made to answer nothing, as one behind a network may.
type brokenStore struct {
	sqlstore.Store
	broken atomic.Bool
}

func (s *brokenStore) err() error {
	if s.broken.Load() {
		return errors.New("the store's server is away")
	}
	return nil
}

func (s *brokenStore) Get(ctx context.Context, key string) (sqlstore.Entry, bool, error) {
	if err := s.err(); err != nil {
		return sqlstore.Entry{}, false, err
	}
	return s.Store.Get(ctx, key)
}

func (s *brokenStore) Revision(ctx context.Context) (sqlstore.Revision, error) {
	if err := s.err(); err != nil {
		return 0, err
	}
	return s.Store.Revision(ctx)
}

func (s *brokenStore) List(ctx context.Context, prefix, after string, limit int, at sqlstore.Revision) (sqlstore.Page, error) {
	if err := s.err(); err != nil {
		return sqlstore.Page{}, err
	}
	return s.Store.List(ctx, prefix, after, limit, at)
}

// TestStoreFailureIsNoEmptyAnswer has every verb ask a store that does not answer: each says so, and none says "not found"
// or shows nothing.
func TestStoreFailureIsNoEmptyAnswer(t *testing.T) {
	s := &brokenStore{Store: registrytest.Store(t)}
	view := objects.New(objects.Config{Store: s, Kinds: builtinKinds})
	r := registrytest.Start(t, registry.Config{Store: s, Kinds: builtinKinds, Objects: view})
	eventually(t, "the feed runs", func() bool { return view.Health() == nil })
	registrytest.Create(t, r, configMap("a"))
	one := registrytest.Target(t, kube.ConfigMap, "default", "a")
	all := registrytest.Target(t, kube.ConfigMap, "default", "")
	s.broken.Store(true)
	for verb, ask := range map[string]func() error{
		"get":               func() error { _, err := r.Get(ctx, one, nil); return err },
		"get at a revision": func() error { _, err := r.Get(ctx, one, &metav1.GetOptions{ResourceVersion: "1"}); return err },
		"list":              func() error { _, err := r.List(ctx, all, nil); return err },
		"list at a revision": func() error {
			_, err := r.List(ctx, all, &metav1.ListOptions{ResourceVersion: "1"})
			return err
		},
		"watch":  func() error { _, err := r.Watch(ctx, all, nil); return err },
		"create": func() error { _, err := r.Create(ctx, all, configMap("b"), nil); return err },
		"update": func() error { _, err := r.Update(ctx, one, configMap("a"), nil); return err },
		"delete": func() error { _, err := r.Delete(ctx, one, nil); return err },
		"delete all": func() error {
			_, err := r.DeleteCollection(ctx, all, nil, nil)
			return err
		},
		"commit of a loop": func() error { return r.Client().Delete(ctx, kube.ConfigMap, "default", "a", metav1.DeleteOptions{}) },
	} {
		t.Run(verb, func(t *testing.T) { registrytest.WantError(t, ask(), 500, "the store's server is away") })
	}
	if err := view.Health(); err == nil {
		t.Error("the feed is well while the store does not answer")
	}
	s.broken.Store(false)
	if _, err := r.Get(ctx, one, nil); err != nil {
		t.Error(err)
	}
}

// TestTypedReadsRecover has a kind's first reader come while the store does not answer.
func TestTypedReadsRecover(t *testing.T) {
	s := &brokenStore{Store: registrytest.Store(t)}
	view := objects.New(objects.Config{Store: s, Kinds: builtinKinds})
	r := registrytest.Start(t, registry.Config{Store: s, Kinds: builtinKinds, Objects: view})
	eventually(t, "the feed runs", func() bool { return view.Health() == nil })
	registrytest.Create(t, r, configMap("a"))
	s.broken.Store(true)
	if _, ok := r.Client().Get(kube.ConfigMap, "default", "a"); ok {
		t.Error("found although the store did not answer")
	}
	s.broken.Store(false)
	if got := names(r.Client().List(kube.ConfigMap, "")); got != "default/a" {
		t.Errorf("after the store has answered again the cache has %q", got)
	}
}
