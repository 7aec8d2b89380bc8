package dispatch

import (
	"context"
	"log/slog"
	"time"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/dispatch/linkkeys"
	"petrel.dev/petrel/hub/dispatch/tokens"
	"petrel.dev/petrel/internal/wire"
)

// Bus carries frames between the hub and the nodes, best effort.
type Bus interface {
	// Publish sends a frame to a topic. It never blocks and may drop; frames of one topic keep their order. The frame
	// must not be changed afterwards.
	Publish(topic string, frame []byte)
	// Run calls receive for each frame on a node's up, live and stream topics until ctx ends; receive returns at once
	// and owns the frame. It calls connected when the bus begins to work, and when it stops.
	Run(ctx context.Context, receive func(topic string, frame []byte), connected func(bool)) error
	// LastSeen is when the node (its id in topics) last sent anything at all, pings of its connection included; zero when the
	// bus does not see that, or the node has no connection. It is still known while receive is called with a node's last words, its MQTT will.
	LastSeen(node string) time.Time
	// Guard makes the bus reserve room for the devices for which known returns true (by id in topics), whatever others do. It is
	// called once, before Run.
	Guard(known func(device string) bool)
}

// Config is what a Dispatch needs. Client, Bus, Keys and Log are required.
type Config struct {
	Client control.Client
	Bus    Bus
	// Tokens makes the ServiceAccount tokens of pods; nil: pods get none.
	Tokens tokens.Issuer
	Keys   linkkeys.Keys
	// Addresses (host:port) are where agents reach this hub; agents store them.
	Addresses []string
	// History names the history of the hub's store, and its revision now: a node takes "unknown" for "deleted" only from
	// the history that welcomed it. Nil, or an empty id, makes every node keep its pods when it is not known.
	History func() (id string, revision uint64)
	// Settings are the cluster's networks, passed on to nodes.
	Settings wire.Settings
	Log      *slog.Logger
}
