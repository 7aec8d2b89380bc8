package objects_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"petrel.dev/petrel/hub/objects"
	"petrel.dev/petrel/hub/resource/builtin"
	"petrel.dev/petrel/sqlstore"
)

// WaitFor returns with the revision that it waits for, not earlier and not later, and says why when that cannot come.
func TestWaitFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &stalledStore{next: make(chan sqlstore.Revision)}
		c := objects.New(objects.Config{Store: s, Kinds: builtin.New()})
		run, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		waiting := func(ctx context.Context, wait func(context.Context) error) (result func() string) {
			got := make(chan error, 1)
			go func() { got <- wait(ctx) }()
			return func() string {
				synctest.Wait()
				select {
				case err := <-got:
					if err != nil {
						return err.Error()
					}
					return "shown"
				default:
					return "waits"
				}
			}
		}
		expect := func(result func() string, want string) {
			t.Helper()
			if got := result(); got != want {
				t.Errorf("%s, want %s", got, want)
			}
		}
		until := func(rev sqlstore.Revision) func(context.Context) error {
			return func(ctx context.Context) error { return c.WaitFor(ctx, rev) }
		}

		early := waiting(t.Context(), until(1))
		expect(early, "waits") // for Run too
		go func() { done <- c.Run(run) }()
		expect(early, "waits")
		expect(waiting(t.Context(), until(0)), "shown")
		expect(waiting(t.Context(), c.CatchUp), "shown")

		s.rev.Store(4)
		all, third := waiting(t.Context(), c.CatchUp), waiting(t.Context(), until(3))
		s.next <- 2
		expect(early, "shown")
		expect(third, "waits")
		s.next <- 3
		expect(third, "shown")
		expect(all, "waits")
		s.next <- 4
		expect(all, "shown")
		expect(waiting(t.Context(), c.CatchUp), "shown")

		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		bounded, ended := waiting(short, until(5)), waiting(t.Context(), until(5))
		time.Sleep(2 * time.Second)
		expect(bounded, context.DeadlineExceeded.Error())
		expect(ended, "waits")
		stop()
		<-done
		expect(ended, objects.ErrEnded.Error())
		if err := c.WaitFor(t.Context(), 5); !errors.Is(err, objects.ErrEnded) {
			t.Errorf("waiting on an ended feed: %v", err)
		}
		expect(waiting(t.Context(), until(4)), "shown") // what was applied still is
	})
}
