package stall

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestStuck checks that only a round that goes on counts, and from its own beginning.
func TestStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := Work{Name: "pods"}
		stuck := func(want bool) {
			t.Helper()
			if err := w.Stuck(time.Minute); (err != nil) != want || err != nil && !strings.HasPrefix(err.Error(), "pods: ") {
				t.Errorf("stuck: %v, want %v", err, want)
			}
		}
		stuck(false)
		time.Sleep(time.Hour)
		stuck(false)
		w.Begin()
		time.Sleep(59 * time.Second)
		stuck(false)
		time.Sleep(2 * time.Second)
		stuck(true)
		w.End()
		stuck(false)
		w.Begin()
		stuck(false)
	})
}
