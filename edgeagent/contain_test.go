package edgeagent

import (
	"log/slog"
	"testing"
	"time"

	"petrel.dev/petrel/internal/contain"
)

// TestPanicInApply: a panic while the desired set is applied is a failure, after which it is tried again; nothing stays
// locked, and the agent's other parts go on.
func TestPanicInApply(t *testing.T) {
	a := &Agent{log: slog.New(slog.DiscardHandler)} // without a cache to ask
	before := contain.Counts()["agent/apply"]
	if a.applied(t.Context(), false) {
		t.Error("it counts as applied")
	}
	if contain.Counts()["agent/apply"] != before+1 {
		t.Error("there was no panic")
	}
	if !a.mu.TryLock() {
		t.Fatal("the agent's lock is held for good")
	}
	a.mu.Unlock()
	if err := atMost(time.Minute, "stopping", func() error { panic("poison") }); err == nil {
		t.Error("a panic on the way out is no error")
	}
}
