package edgeagent

import (
	"context"

	"petrel.dev/petrel/internal/wire"
)

// ServeStream serves one stream that the hub has opened to a pod of this node or to the node itself, and closes it.
func (a *Agent) ServeStream(ctx context.Context, req wire.StreamRequest, s wire.Stream) {
	plane := a.dataPlane()
	if plane == nil {
		_ = s.Close(wire.StreamEnd{Reason: "ServiceUnavailable", Message: "the agent is still starting"})
		return
	}
	if req.Kind == wire.StreamNode && req.Port == 0 {
		plane.api.Serve(ctx, s)
		return
	}
	if req.Kind == wire.StreamFetch {
		plane.pods.ServeFetch(ctx, s)
		return
	}
	plane.pods.ServeStream(ctx, req, s)
}
