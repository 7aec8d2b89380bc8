package objects_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"petrel.dev/petrel/hub/objects"
	"petrel.dev/petrel/hub/resource/builtin"
	"petrel.dev/petrel/sqlstore"
)

// stalledStore is a store that has commits which its watchers get one by one, when the test lets them.
type stalledStore struct {
	sqlstore.Store
	rev  atomic.Int64
	next chan sqlstore.Revision
}

func (s *stalledStore) at() sqlstore.Revision { return sqlstore.Revision(s.rev.Load()) }

func (s *stalledStore) Revision(context.Context) (sqlstore.Revision, error) { return s.at(), nil }

func (s *stalledStore) List(context.Context, string, string, int, sqlstore.Revision) (sqlstore.Page, error) {
	return sqlstore.Page{Rev: s.at()}, nil
}

func (s *stalledStore) Watch(context.Context, string, sqlstore.Revision) (sqlstore.Watcher, error) {
	return stalledWatcher{s}, nil
}

type stalledWatcher struct{ *stalledStore }

func (s stalledWatcher) Revision() sqlstore.Revision { return s.at() }

func (s stalledWatcher) Next(ctx context.Context) ([]sqlstore.Event, error) {
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case rev := <-s.next:
		return []sqlstore.Event{{Key: "/x/y", Rev: rev, Deleted: true}}, nil
	}
}

func (s stalledWatcher) Close() {}

// A hub whose controllers do not see what clients write is not ready.
func TestFeedHealth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &stalledStore{next: make(chan sqlstore.Revision)}
		r := objects.New(objects.Config{Store: s, Kinds: builtin.New()})
		expect := func(text string) {
			t.Helper()
			err := r.Health()
			if text == "" && err != nil || text != "" && (err == nil || !strings.Contains(err.Error(), text)) {
				t.Errorf("health %v, want %q", err, text)
			}
		}
		expect("does not run")
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		synctest.Wait()
		expect("")

		s.rev.Store(3) // committed, not applied
		expect("")
		time.Sleep(9 * time.Second)
		expect("")
		s.next <- 1 // it moves, slowly
		synctest.Wait()
		time.Sleep(9 * time.Second)
		expect("")
		time.Sleep(10 * time.Second)
		expect("stood still for 10s, 2 revisions behind")
		s.next <- 3
		synctest.Wait()
		expect("")

		s.rev.Store(20_000)
		expect("19997 revisions behind")
		s.next <- 20_000
		synctest.Wait()
		expect("")

		cancel()
		<-done
		expect("does not run")
	})
}
