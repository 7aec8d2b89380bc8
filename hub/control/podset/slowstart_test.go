package podset

import (
	"errors"
	"sync/atomic"
	"testing"
)

// TestSlowStart checks the size of the batches: 1, 2, 4, ... calls at a time; the batch with an error is the last.
func TestSlowStart(t *testing.T) {
	broken := errors.New("broken")
	for _, c := range []struct {
		name   string
		n      int
		fails  func(i int) bool
		called int32 // how many calls there are
	}{
		{"none wanted", 0, nil, 0},
		{"all go well", 10, nil, 10},
		{"the first fails", 1000, func(int) bool { return true }, 1},
		{"the second batch fails", 1000, func(i int) bool { return i == 2 }, 1 + 2},
		{"one of the third", 1000, func(i int) bool { return i == 3 }, 1 + 2 + 4},
		{"the rest is a smaller batch", 9, func(i int) bool { return i == 8 }, 9},
	} {
		var called atomic.Int32
		seen := make([]atomic.Int32, c.n)
		err := slowStart(c.n, func(i int) error {
			called.Add(1)
			seen[i].Add(1)
			if c.fails != nil && c.fails(i) {
				return broken
			}
			return nil
		})
		if (err != nil) != (c.fails != nil) || called.Load() != c.called {
			t.Errorf("%s: %d calls and %v, want %d", c.name, called.Load(), err, c.called)
		}
		for i := range seen {
			if n, want := seen[i].Load(), i < int(c.called); n > 1 || (n == 1) != want {
				t.Errorf("%s: %d calls of %d", c.name, n, i)
			}
		}
	}
}
