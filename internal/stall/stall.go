// Package stall notices work that does not end. A loop marks when it begins a round and when it waits again; a watchdog asks how long
// the present round has gone on. That costs two atomic writes a round, wakes no loop, and an idle one is never stuck.
package stall

import (
	"fmt"
	"sync/atomic"
	"time"
)

// start is the origin of Work's times: they follow the monotonic clock, so that a clock that is set makes nothing stuck.
var start = time.Now()

// Work is the rounds of one loop, of which one goes on at a time. Only who does the round calls Begin and End; anyone may ask whether it is stuck.
type Work struct {
	Name  string       // for people; set before the first Begin
	since atomic.Int64 // nanoseconds after start at which the present round began; 0: the loop waits
}

// Begin marks the beginning of a round.
func (w *Work) Begin() { w.since.Store(int64(time.Since(start)) + 1) }

// End marks that the round has ended.
func (w *Work) End() { w.since.Store(0) }

// Stuck returns an error when the present round has gone on for longer than limit.
func (w *Work) Stuck(limit time.Duration) error {
	since := w.since.Load()
	if since == 0 {
		return nil
	}
	if took := time.Since(start) - time.Duration(since); took > limit {
		return fmt.Errorf("%s: one round takes since %v", w.Name, took.Round(time.Second))
	}
	return nil
}
