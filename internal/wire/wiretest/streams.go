package wiretest

import "petrel.dev/petrel/internal/wire"

// Streams returns both ends of an open stream, joined without a link.
func Streams() (hub, node *wire.Endpoint) {
	var key [32]byte
	hub = wire.NewEndpoint(key, true, func(frame []byte) { node.Deliver(frame) })
	node = wire.NewEndpoint(key, false, func(frame []byte) { hub.Deliver(frame) })
	node.Start()
	return hub, node
}
