package due

import (
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// Whatever is added when, each key comes once at its earliest time, and Next is the earliest of all.
func TestTimes(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		start := time.Unix(1e9, 0)
		now := start
		x, want := New[int](), map[int]time.Time{}
		rt.Repeat(map[string]func(*rapid.T){
			"add": func(*rapid.T) {
				k, at := rapid.IntRange(0, 4).Draw(rt, "key"), now.Add(time.Duration(rapid.IntRange(0, 9).Draw(rt, "in")))
				x.Add(k, at)
				if was, ok := want[k]; !ok || at.Before(was) {
					want[k] = at
				}
			},
			"never": func(*rapid.T) { x.Add(rapid.IntRange(0, 4).Draw(rt, "key"), time.Time{}) },
			"pass": func(*rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(0, 5).Draw(rt, "time")))
				got := x.Take(now)
				slices.Sort(got)
				var due []int
				for k, at := range want {
					if !at.After(now) {
						due = append(due, k)
						delete(want, k)
					}
				}
				slices.Sort(due)
				if !slices.Equal(got, due) {
					rt.Errorf("due are %v, want %v", got, due)
				}
			},
			"": func(*rapid.T) {
				var first time.Time
				for at := range maps.Values(want) {
					if first.IsZero() || at.Before(first) {
						first = at
					}
				}
				if got := x.Next(); !got.Equal(first) {
					rt.Errorf("next is %v, want %v", got.Sub(start), first.Sub(start))
				}
			},
		})
	})
}
