// Package seldom allows things by their key once in a while: Events and log lines, of which others can cause as many as they like.
package seldom

import (
	"maps"
	"time"
)

// Seldom allows each key once in every. It forgets the keys whose time is over, and refuses new ones beyond max. Its user guards it.
type Seldom struct {
	every time.Duration
	max   int
	last  map[string]time.Time // nil before the first
}

// New returns a Seldom that holds at most max keys.
func New(every time.Duration, max int) Seldom { return Seldom{every: every, max: max} }

// Allow reports whether the key may be used now, and counts it as used when it may.
func (s *Seldom) Allow(now time.Time, key string) bool {
	if t, ok := s.last[key]; ok && now.Sub(t) < s.every {
		return false
	}
	if s.last == nil {
		s.last = map[string]time.Time{}
	}
	if len(s.last) >= s.max {
		maps.DeleteFunc(s.last, func(_ string, t time.Time) bool { return now.Sub(t) >= s.every })
		if len(s.last) >= s.max {
			return false
		}
	}
	s.last[key] = now
	return true
}
