package seldom

import (
	"fmt"
	"testing"
	"time"
)

func TestSeldom(t *testing.T) {
	now := time.Unix(1e9, 0)
	s := New(time.Hour, 3)
	for i := range 10 {
		if got := s.Allow(now, fmt.Sprint(i%5)); got != (i < 3) {
			t.Errorf("%d: %v", i, got)
		}
	}
	if now = now.Add(time.Hour); !s.Allow(now, "4") || !s.Allow(now, "0") || s.Allow(now, "0") {
		t.Error("after an hour")
	}
}
