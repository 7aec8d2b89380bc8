package ctrd

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/v2/core/remotes"

	"petrel.dev/petrel/edgeagent/cruntime"
)

// Pulls returns how far the pulls are that run now, the oldest first. What an earlier pull has left unfinished counts, as the next one goes
// on from there.
func (r *Runtime) Pulls(ctx context.Context) ([]cruntime.PullProgress, error) {
	running := r.pulls.List()
	if len(running) == 0 {
		return nil, nil
	}
	ctx = r.ns(ctx)
	store := r.client.ContentStore()
	active, err := store.ListStatuses(ctx)
	if err != nil {
		return nil, fmt.Errorf("pulls: %w", err)
	}
	offsets := map[string]int64{} // by reference of the transfer
	for _, s := range active {
		offsets[s.Ref] = s.Offset
	}
	var out []cruntime.PullProgress
	for _, c := range running {
		p := cruntime.PullProgress{Image: c.Image, Since: c.Since}
		for _, d := range c.Blobs {
			p.TotalBytes += d.Size
			if offset, ok := offsets[remotes.MakeRefKey(ctx, d)]; ok {
				p.Bytes += min(offset, d.Size)
			} else if _, err := store.Info(ctx, d.Digest); err == nil {
				p.Bytes += d.Size
			}
		}
		out = append(out, p)
	}
	return out, nil
}
