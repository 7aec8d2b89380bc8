package podlogs

import (
	"slices"
	"time"
)

// merger decides which stream's line comes next: the oldest of those that are there, once no stream can be expected to bring an
// older one. It has no clock and no goroutine. One line of each stream is held, not more.
type merger struct {
	streams []*stream // in the order in which lines of the same time are printed
}

// add takes a stream up. Until the deadline others wait for its first line.
func (m *merger) add(s *stream, deadline time.Time) {
	s.head, s.deadline = nil, deadline
	m.streams = append(m.streams, s)
}

// remove forgets a stream that has ended.
func (m *merger) remove(s *stream) {
	m.streams = slices.DeleteFunc(m.streams, func(x *stream) bool { return x == s })
}

// next returns the stream whose line is to be printed now. Without one, wait is after how long to ask again even when nothing comes;
// 0 means that only a line or an end changes the answer.
func (m *merger) next(now time.Time) (next *stream, wait time.Duration) {
	for _, s := range m.streams {
		switch {
		case s.head != nil:
			if next == nil || s.head.at.Before(next.head.at) {
				next = s
			}
		case now.Before(s.deadline): // it may bring an older one; a stream that was silent until its deadline is not waited for
			if d := s.deadline.Sub(now); wait == 0 || d > wait {
				wait = d
			}
		}
	}
	switch {
	case next == nil:
		return nil, 0
	case wait > 0:
		return nil, wait
	}
	return next, 0
}

// took notes that the stream's line has been printed: its next one is waited for until the deadline.
func (m *merger) took(s *stream, deadline time.Time) { s.head, s.deadline = nil, deadline }
