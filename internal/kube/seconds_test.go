package kube

import (
	"math"
	"testing"
	"time"
)

func TestSecondsDoNotOverflow(t *testing.T) {
	for n, want := range map[int64]time.Duration{
		0: 0, 1: time.Second, -1: -time.Second, 86400: 24 * time.Hour,
		10_000_000_000: 9_223_372_036 * time.Second, math.MaxInt64: 9_223_372_036 * time.Second, math.MinInt64: -9_223_372_036 * time.Second,
	} {
		if got := Seconds(n); got != want {
			t.Errorf("Seconds(%d) = %s, want %s", n, got, want)
		}
	}
}
