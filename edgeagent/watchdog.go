package edgeagent

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"
)

// stuckAfter is how long one round of a loop may take before the agent counts as stuck. What one pod waits for is its worker's, and
// holds up no loop.
const stuckAfter = 2 * time.Minute

// watchdog reports to systemd, where there is one, that the agent is up and, when ctx ends, that it stops, and feeds its watchdog
// meanwhile.
func (a *Agent) watchdog(ctx context.Context, g *errgroup.Group) {
	a.cfg.Notify.Ready(a.log)
	context.AfterFunc(ctx, func() { a.cfg.Notify.Stopping(a.log) })
	g.Go(func() error { return a.cfg.Notify.Run(ctx, a.log.With("part", "watchdog"), a.alive) })
}

// alive returns why a new start of the agent would help: one of its loops is stuck. It goes through the locks that all of them need,
// so that it hangs where they do, and then the watchdog is not fed either. No pod, no hub and no containerd can make it fail.
func (a *Agent) alive(context.Context) error {
	err := errors.Join(a.applying.Stuck(stuckAfter), a.node.Stuck(stuckAfter))
	a.cache.Settings()
	if plane := a.dataPlane(); plane != nil {
		plane.pods.Running()
	}
	return err
}
