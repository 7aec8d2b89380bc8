package edgeagent

import (
	"context"

	"petrel.dev/petrel/internal/wire"
)

// ServeStream serves one stream that the hub has opened to a pod of this node, and closes it.
func (a *Agent) ServeStream(ctx context.Context, req wire.StreamRequest, s wire.Stream) {
	plane := a.dataPlane()
	if plane == nil {
		_ = s.Close(wire.StreamEnd{Reason: "ServiceUnavailable", Message: "the agent is still starting"})
		return
	}
	plane.pods.ServeStream(ctx, req, s)
}
