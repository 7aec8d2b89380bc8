package ctrd

import (
	"errors"
	"log/slog"
	"testing"

	"petrel.dev/petrel/internal/contain"
)

// TestOutputPanics checks that containerd's library writes a process's output in goroutines of its own, where a panic would end
// the agent.
func TestOutputPanics(t *testing.T) {
	r := &Runtime{cfg: Config{Log: slog.New(slog.DiscardHandler)}}
	w := r.output("c", writerFunc(func([]byte) (int, error) { panic("poison") }))
	var p *contain.Panic
	if _, err := w.Write([]byte("x")); !errors.As(err, &p) {
		t.Errorf("%v", err)
	}
	if n, err := r.output("c", nil).Write([]byte("x")); n != 1 || err != nil {
		t.Errorf("without a reader: %d, %v", n, err)
	}
}
