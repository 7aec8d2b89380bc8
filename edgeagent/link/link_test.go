package link

import (
	"testing"
	"time"
)

// Sessions that end as soon as they have begun, again and again, are made at growing distances; a few are forgiven, and one
// that lasts clears the account.
func TestShortSessionsSlowDown(t *testing.T) {
	b := backoff{}
	for range shortForgiven {
		if b.served(time.Second); b.bound != 0 {
			t.Fatalf("bound %v after %d short sessions", b.bound, b.short)
		}
	}
	last := time.Duration(0)
	for range 12 {
		if b.served(time.Second); b.bound < last || b.bound < retryMin || b.bound > retryMax {
			t.Fatalf("bound %v after %v", b.bound, last)
		}
		last = b.bound
	}
	if last != retryMax {
		t.Errorf("bound %v in the end, want %v", last, retryMax)
	}
	if b.served(steadyFrom); b.bound != 0 || b.short != 0 {
		t.Errorf("after a session that lasted: %+v", b)
	}
}
