package slots

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestSlots checks that no more work runs at once than there are slots, and that each gets its turn.
func TestSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(2, time.Minute, 0)
		var now, most, done atomic.Int32
		for range 10 {
			go s.Run(t.Context(), nil, func(context.Context) error {
				most.Store(max(most.Load(), now.Add(1)))
				time.Sleep(time.Second)
				now.Add(-1)
				done.Add(1)
				return nil
			})
		}
		time.Sleep(5*time.Second + time.Millisecond)
		if most.Load() != 2 || done.Load() != 10 {
			t.Errorf("%d at once, %d done after five rounds", most.Load(), done.Load())
		}
	})
}

// TestTurnsEnd checks that work that has had its turn gives its slot back and goes on; late is called for it.
func TestTurnsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(1, time.Minute, 0)
		var late atomic.Int32
		ended := make(chan error, 1)
		go func() {
			ended <- s.Run(t.Context(), func() { late.Add(1) }, func(ctx context.Context) error {
				time.Sleep(time.Hour)
				return ctx.Err()
			})
		}()
		synctest.Wait()
		begin := time.Now()
		if err := s.Run(t.Context(), nil, func(context.Context) error { return nil }); err != nil || time.Since(begin) != time.Minute {
			t.Errorf("the next one: %v after %s, want one turn", err, time.Since(begin))
		}
		if err := <-ended; err != nil || late.Load() != 1 {
			t.Errorf("the late one: %v, late was called %d times", err, late.Load())
		}
	})
}

// TestBeyondIsBounded checks that when as much goes on beyond its turn as may, the next is cut off, with the reason.
func TestBeyondIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(1, time.Minute, 1)
		ctx, cancel := context.WithCancel(t.Context())
		work := func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		}
		first, second := make(chan error, 1), make(chan error, 1)
		go func() { first <- s.Run(ctx, nil, work) }()
		synctest.Wait()
		go func() { second <- s.Run(ctx, nil, work) }()
		time.Sleep(2*time.Minute + time.Millisecond)
		synctest.Wait()
		select {
		case err := <-second:
			if !errors.As(err, new(errTurn)) {
				t.Errorf("the second ends with %v", err)
			}
		default:
			t.Error("the second goes on")
		}
		select {
		case err := <-first:
			t.Errorf("the first was cut off: %v", err)
		default:
		}
		cancel()
		if err := <-first; !errors.Is(err, context.Canceled) {
			t.Errorf("the first ends with %v", err)
		}
	})
}

// TestPanicGivesBack checks that work that panics leaves its slot to the next.
func TestPanicGivesBack(t *testing.T) {
	s := New(1, time.Minute, 0)
	func() {
		defer func() { _ = recover() }()
		_ = s.Run(t.Context(), nil, func(context.Context) error { panic("a fault") })
	}()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := s.Run(ctx, nil, func(context.Context) error { return nil }); err != nil {
		t.Error(err)
	}
}
