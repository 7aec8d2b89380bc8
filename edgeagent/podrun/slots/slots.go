// Package slots bounds how many pods do the same expensive thing at once.
package slots

import (
	"context"
	"time"
)

// Slots are a throttle for what the node has little of, not a
// lock: what takes longer than its turn does not work but waits, for a server or a disk that does not answer. It then
// goes on without its slot, and the others get theirs.
type Slots struct {
	turn   time.Duration // how long work may hold a slot
	places chan struct{} // one for each that may hold a slot
	beyond chan struct{} // one for each that may go on beyond its turn; nil: all may, their own deadlines bound them
}

// New makes n slots. Work that has had its turn goes on without one: up to beyond of it at the same time, the rest is cut off;
// beyond of 0: all of it, its own deadlines bound it.
func New(n int, turn time.Duration, beyond int) *Slots {
	s := &Slots{turn: turn, places: make(chan struct{}, n)}
	if beyond > 0 {
		s.beyond = make(chan struct{}, beyond)
	}
	return s
}

// errTurn is why work is cut off that has had its turn, when too many go on beyond theirs already.
type errTurn struct{ after time.Duration }

func (e errTurn) Error() string {
	return "it has taken more than " + e.after.String() + " and others wait; what is done is kept, and it goes on in its next turn"
}

// Run waits for a slot and runs work in it, as long as ctx lasts. late is called, if set, when work has had its turn and
// goes on without its slot. Whatever becomes of work, a panic too, its slot is given back.
func (s *Slots) Run(ctx context.Context, late func(), work func(context.Context) error) error {
	select {
	case s.places <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	over := make(chan struct{})
	returned := make(chan struct{})
	go func() {
		defer close(returned)
		s.watch(over, late, cancel)
	}()
	defer func() {
		close(over)
		<-returned
	}()
	err := work(ctx)
	if cause, cut := context.Cause(ctx).(errTurn); cut && err != nil {
		return cause
	}
	return err
}

// watch gives a slot back at the end of its turn, or when the work in it is over.
func (s *Slots) watch(over <-chan struct{}, late func(), cut context.CancelCauseFunc) {
	turn := time.NewTimer(s.turn)
	defer turn.Stop()
	select {
	case <-over:
		<-s.places
		return
	case <-turn.C:
	}
	<-s.places
	if s.beyond != nil {
		select {
		case s.beyond <- struct{}{}:
			defer func() { <-s.beyond }()
		default:
			cut(errTurn{s.turn})
			<-over
			return
		}
	}
	if late != nil {
		late()
	}
	<-over
}
