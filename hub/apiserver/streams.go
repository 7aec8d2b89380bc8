package apiserver

import (
	"context"

	"petrel.dev/petrel/internal/wire"
)

// Streams opens streams to pods on their nodes; hub/dispatch is one. The error is an *apierrors.StatusError: the node is
// dark (ServiceUnavailable, saying since when), unknown, or refused.
type Streams interface {
	OpenStream(ctx context.Context, node string, req wire.StreamRequest) (wire.Stream, error)
}
