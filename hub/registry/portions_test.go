package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"testing"
)

// TestPortions checks that a portion has one item at least and else is bounded in bytes, that each item is shown once, in order, and that an
// error is the last.
func TestPortions(t *testing.T) {
	for _, c := range []struct {
		n, size int
		want    []int // items of each portion
	}{
		{0, 1, nil}, {1, 2 * portionBytes, []int{1}}, {3, 2 * portionBytes, []int{1, 1, 1}}, {5, portionBytes / 2, []int{2, 2, 1}}, {1000, 1000, []int{1000}},
	} {
		l := &ListResult{}
		for range c.n {
			l.Items = append(l.Items, bytes.Repeat([]byte("a"), c.size))
		}
		broken := errors.New("broken")
		for _, show := range []func(context.Context, int, int) ([]json.RawMessage, error){
			nil,
			func(_ context.Context, from, to int) ([]json.RawMessage, error) { return l.Items[from:to], nil },
			func(context.Context, int, int) ([]json.RawMessage, error) { return nil, broken },
		} {
			l.Show = show
			var got []int
			var last error
			for items, err := range l.Portions(t.Context()) {
				if last != nil {
					t.Fatal("an error was not the last")
				}
				if last = err; err == nil {
					got = append(got, len(items))
				}
			}
			if fails := last != nil; fails {
				if len(got) != 0 || !errors.Is(last, broken) {
					t.Errorf("%d items of %d bytes: %v after %v", c.n, c.size, last, got)
				}
				continue
			}
			if len(got) != len(c.want) {
				t.Fatalf("%d items of %d bytes: %v, want %v", c.n, c.size, got, c.want)
			}
			for i := range got {
				if got[i] != c.want[i] {
					t.Errorf("%d items of %d bytes: %v, want %v", c.n, c.size, got, c.want)
				}
			}
		}
	}
}
