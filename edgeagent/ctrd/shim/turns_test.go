package shim

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// TestTurns checks who waits for whom: a start for deletions, a deletion for a start without making its caller wait, neither for
// another pod.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var all Turns
		var did []string
		note := func(what string) func() { return func() { did = append(did, what) } }
		start := func(ctx context.Context) func() {
			done, err := all.Start(ctx, "a")
			if err != nil {
				t.Fatal(err)
			}
			return done
		}
		check := func(when string, want ...string) {
			t.Helper()
			synctest.Wait()
			if !slices.Equal(did, want) {
				t.Errorf("%s: %v; want %v", when, did, want)
			}
			did = nil
		}

		first, second := start(t.Context()), start(t.Context())
		all.Delete("a", note("x"))
		all.Delete("b", note("of another pod"))
		check("during two starts", "of another pod")
		first()
		check("during one")
		all.Delete("a", note("y"))
		second()
		check("after both", "x", "y")

		hold := make(chan struct{})
		go all.Delete("a", func() { <-hold })
		synctest.Wait()
		all.Delete("a", note("beside the other"))
		go func() {
			done := start(context.Background())
			note("start")()
			done()
		}()
		check("during a deletion", "beside the other")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := all.Start(ctx, "a"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a start that has no more time: %v", err)
		}
		close(hold)
		check("after it", "start")
		if len(all.pods) != 0 {
			t.Errorf("left: %v", all.pods)
		}
	})
}
