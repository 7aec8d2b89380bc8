// Package lean gives back the memory that a long-running process needed only to start.
//
// Three things stay behind after a start. The heap has grown for work that does not come again: the first garbage
// collections, the first full list, the first session. The collector lets the heap double between two runs, which on a
// board with 512 MB is memory that the workload could have. And the kernel has mapped large parts of the executable,
// because the initialisation of every linked package has run once, and because it maps up to sixteen neighbours of every
// page that is touched; most of them are never looked at again.
//
// None of this is a leak, and clean pages of an executable are the first that a kernel under pressure takes by itself.
// But what is resident is what an operator sees, what a memory limit of systemd counts, and what the kernel must work to
// get back on the day it is short.
package lean

import (
	"context"
	"log/slog"
	"os"
	"runtime/debug"
	"time"
)

// passes are the times since the start at which memory is given back: when the process itself has started, when its first
// work has been done, and once the garbage of both has aged. Later ones come only after work that has made the process larger: idle
// means idle.
var passes = []time.Duration{5 * time.Second, 20 * time.Second, 2 * time.Minute}

// Run makes the collector frugal while the process is at rest, and gives start-up's memory back a few times in the first
// minutes. Afterwards it gives back what work has left behind, when the process is at rest again: a node that gets ten pods a month
// after its start has then what one has that gets them at once. It returns, without an error, when ctx ends. With GOGC in the environment the
// operator has decided: then the collector is left alone, and there are only the first minutes.
func Run(ctx context.Context, log *slog.Logger) error {
	var p *pacer
	if os.Getenv("GOGC") == "" {
		p = startPacer(log)
		defer p.stop()
	}
	began := time.Now()
	for _, at := range passes {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Until(began.Add(at))):
		}
		GiveBack(log)
	}
	if p != nil {
		p.passed()
	}
	<-ctx.Done()
	return nil
}

// GiveBack gives back what the process does not need now: free memory, and pages of the executable that are read again when they are
// used. It takes milliseconds, so it is for the end of rare and heavy work.
func GiveBack(log *slog.Logger) {
	debug.FreeOSMemory()
	n, err := dropProgram()
	if err != nil {
		log.Debug("executable's pages stay mapped", "error", err)
	}
	log.Debug("memory given back", "programKiB", n>>10)
}
