package hub

import (
	"context"
	"fmt"

	"petrel.dev/petrel/hub/backup"
)

// archives writes archives of the hub as its operator has scheduled them, until ctx ends.
func (h *Hub) archives(ctx context.Context) error {
	s := h.cfg.Archives
	if s.Dir == "" {
		return nil
	}
	s.Log = h.part("backup")
	s.State = func() string {
		history, rev := h.history()
		return fmt.Sprintf("%s %d", history, rev)
	}
	return s.Run(ctx, backup.Source{DataDir: h.cfg.DataDir, Snapshot: h.snapshot})
}
