package hub

import (
	"context"
	"errors"
	"time"
)

// stuckAfter is how long one round of a loop may take before the hub counts as stuck. A synchronised write on a card that is near its
// end takes seconds, a compaction of a large store more.
const stuckAfter = 2 * time.Minute

// watchdog feeds systemd's watchdog, where there is one, until ctx ends.
func (h *Hub) watchdog(ctx context.Context) error {
	return h.cfg.Notify.Run(ctx, h.part("watchdog"), h.alive)
}

// alive returns why a new start of the hub would help: its store does not come back from a write, its dispatcher is stuck, or its feed
// of changes has failed. It writes nothing and wakes nothing. A full disk or a broker that is away is no reason.
func (h *Hub) alive(context.Context) error {
	return errors.Join(h.db.Stuck(stuckAfter), h.dispatch.Stuck(stuckAfter), h.objects.Health())
}
