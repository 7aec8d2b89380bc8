package spill

import (
	"bytes"
	"errors"
	"io"
	"testing"
)

// TestWriter checks that no more than the limit is held, that nothing of what is more is held on to, and that it all arrives in order.
func TestWriter(t *testing.T) {
	for _, c := range []struct {
		pieces []string
		over   bool
	}{
		{nil, false},
		{[]string{"", "abcd"}, false},
		{[]string{"ab", "cd"}, false},
		{[]string{"abcde"}, true},
		{[]string{"ab", "cde", "", "f"}, true},
	} {
		var to, want bytes.Buffer
		calls := 0
		w := Writer{Limit: 4, Over: func() io.Writer { calls++; return &to }}
		for _, p := range c.pieces {
			want.WriteString(p)
			if n, err := w.Write([]byte(p)); n != len(p) || err != nil {
				t.Fatalf("%q: %d, %v", p, n, err)
			}
		}
		held, ok := w.Held()
		if got := string(held) + to.String(); ok == c.over || calls != map[bool]int{true: 1}[c.over] || got != want.String() || len(held) > 0 && c.over {
			t.Errorf("%q: held %q (%t), sent on %q in %d calls", c.pieces, held, ok, to.String(), calls)
		}
	}
}

// gone is a client that has gone.
type gone struct{}

var errGone = errors.New("gone")

func (gone) Write([]byte) (int, error) { return 0, errGone }

func TestClientHasGone(t *testing.T) {
	w := Writer{Limit: 1, Over: func() io.Writer { return gone{} }}
	if _, err := w.Write([]byte("a")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := w.Write([]byte("b")); !errors.Is(err, errGone) {
			t.Errorf("%v", err)
		}
	}
}
